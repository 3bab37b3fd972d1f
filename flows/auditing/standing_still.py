"""Nothing is deleted while a retraining is at work: it may record what goes, or write it anew."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flows.auditing.places import Places
from flows.repository import main_checkout
from flows.worktrees import scenario_lock


@contextmanager
def no_retraining(places: Places, scenarios: Iterable[str]) -> Iterator[None]:
    """Within the block no retraining of some scenarios begins, from whichever work tree of the repository.

    Raises:
        BusyError: One is at work.
    """
    main = main_checkout(places.root)
    names = sorted(set(scenarios))
    with ExitStack() as stack:
        for tree in dict.fromkeys((main, *places.trees)):
            if tree == main or (tree / ".recstill" / "locks").is_dir():
                for name in names:
                    stack.enter_context(scenario_lock(tree, name))
        yield


def is_made_again(checkout: Path, name: str) -> bool:
    """Whether a version is being made again now, in the worktree of that name."""
    return _is_held(checkout / ".recstill" / "locks" / f"reproduce-{name}.lock")


def is_retrained(checkout: Path, scenario: str) -> bool:
    """Whether a retraining of a scenario is at work in a checkout."""
    return _is_held(checkout / ".recstill" / "locks" / f"retrain-{scenario}.lock")


def _is_held(lock: Path) -> bool:
    try:
        with lock.open() as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
