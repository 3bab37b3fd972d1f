"""Nothing is deleted while a retraining is at work: it may record what goes, or write it anew."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

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
