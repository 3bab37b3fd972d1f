"""Ctrl-C and a polite kill during a flow: the stages end, then the command ends, within seconds.

Left to itself, Prefect would go on to report to its server, which the same Ctrl-C has ended, and hang for minutes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import psutil

# A stage removes its temporary files when it is interrupted; one that takes longer than this is stuck.
_PATIENCE_SECONDS = 20.0
# What DVC needs, once a stage has ended, to let go of its locks.
_DVC_SECONDS = 0.5


@contextmanager
def prompt_end(first: Callable[[], None] | None = None, last: Callable[[], None] | None = None) -> Iterator[None]:
    """Within the block SIGINT and SIGTERM end all child processes, then this one, with exit status 130 or 143.

    Args:
        first: What is done before.
        last: What is done when the children have ended.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        for impatient in (signal.SIGINT, signal.SIGTERM):
            signal.signal(impatient, signal.SIG_IGN)
        if first is not None:
            # Whatever goes wrong there: nobody could interrupt a second time.
            with contextlib.suppress(Exception):
                first()
        _end(number, last)

    previous = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(number: int, last: Callable[[], None] | None) -> None:
    children = psutil.Process().children(recursive=True)
    if number == signal.SIGTERM:  # a terminal sends its SIGINT to the children itself
        for child in children:
            _quietly(child, signal.SIGTERM)
    _, stuck = psutil.wait_procs(children, timeout=_PATIENCE_SECONDS)
    for child in stuck:
        _quietly(child, signal.SIGKILL)
    time.sleep(_DVC_SECONDS)
    if last is not None:
        with contextlib.suppress(Exception):
            last()
    sys.stdout.flush()
    message = "\ninterrupted; nothing half-written is left, run the same command again to go on\n"
    os.write(sys.stderr.fileno(), message.encode())
    os._exit(128 + number)


def _quietly(child: psutil.Process, number: int) -> None:
    try:
        child.send_signal(number)
    except psutil.NoSuchProcess:
        return
