"""How many processor threads a network computes with.

Sums are split among threads, so their number is part of the result: it must never depend on what else happens to run,
nor, by default, on the machine. One thread is also the fastest for networks of this size as soon as anything runs
beside them: two networks with two threads each on two cores wait for each other thirty times as long as they compute.
"""

from __future__ import annotations

import os

from components.errors import SettingsError

THREADS_VARIABLE = "RECSTILL_THREADS"


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_per_network() -> int:
    """Threads of each network that trains or scores: what ``RECSTILL_THREADS`` says, else one.

    Raises:
        SettingsError: The variable is not a positive whole number.
    """
    value = os.environ.get(THREADS_VARIABLE, "1")
    if not value.isdecimal() or int(value) < 1:
        raise SettingsError(f"{THREADS_VARIABLE}={value!r} is not a number of threads", "Set a whole number from 1.")
    return int(value)
