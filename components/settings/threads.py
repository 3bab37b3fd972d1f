"""How many processor threads a network computes with.

Sums are split among threads, so their number is part of the result: it must never depend on what else happens to run,
nor, by default, on the machine. One thread is also the fastest for networks of this size as soon as anything runs
beside them: two networks with two threads each on two cores wait for each other thirty times as long as they compute.
"""

from __future__ import annotations

import os

from components.errors import SettingsError

THREADS_VARIABLE = "RECSTILL_THREADS"
WORKERS_VARIABLE = "RECSTILL_WORKERS"
MEMBERS_VARIABLE = "RECSTILL_MEMBERS_AT_ONCE"
_COUNTED = {THREADS_VARIABLE: "threads", WORKERS_VARIABLE: "workers", MEMBERS_VARIABLE: "members"}


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_per_network() -> int:
    """Threads of each network that trains or scores: what ``RECSTILL_THREADS`` says, else one.

    Raises:
        SettingsError: The variable is not a positive whole number.
    """
    return _number(THREADS_VARIABLE, 1)


def scoring_workers(default: int | None = None) -> int:
    """Parts of a soft-label cache that are scored at once: what ``RECSTILL_WORKERS`` says, else the default.

    Unlike the number of threads that a network computes with, this one changes no result.

    Args:
        default: None: as many as there are cores.

    Raises:
        SettingsError: The variable is not a positive whole number.
    """
    return _number(WORKERS_VARIABLE, default or cores())


def members_at_once(default: int) -> int:
    """Members of a teacher that are trained at the same time: what ``RECSTILL_MEMBERS_AT_ONCE`` says, else the default.

    It changes no result, and so is no setting: several may share a GPU that one does not fill.

    Raises:
        SettingsError: The variable is not a positive whole number.
    """
    return _number(MEMBERS_VARIABLE, default)


def _number(variable: str, default: int) -> int:
    value = os.environ.get(variable, str(default))
    if not value.isdecimal() or int(value) < 1:
        raise SettingsError(
            f"{variable}={value!r} is not a number of {_COUNTED[variable]}", "Set a whole number from 1."
        )
    return int(value)
