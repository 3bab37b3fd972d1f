"""Repairing by making a version again: its stages run in a worktree of their own, and what comes out is a copy.

Only what is the same by its digest is put back, so that a stage that does not give the same bytes again harms nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from components.errors import RecstillError
from flows.auditing.repairing import Repair
from flows.auditing.reproducing import Attempt, Say, alone_with, prepared, run
from flows.auditing.verifying import Begin, Verified, verify_and_repair
from flows.interruption import prompt_end
from flows.registry import parsed


class Repaired(NamedTuple):
    """How a repair ended.

    Attributes:
        found: The last verification.
        repairs: Everything that was tried.
        not_made: Why versions could not be made again, in sentences that name them.
    """

    found: Verified
    repairs: list[Repair]
    not_made: list[str]


def repaired(
    root: Path,
    targets: Sequence[str],
    *,
    addresses: Sequence[str],
    again: bool,
    workers: int | None,
    begin: Begin,
    say: Callable[[Repair], None],
    tell: Say,
) -> Repaired:
    """Verify and repair from copies; what has none is made again, if that is wished.

    One that cannot be made again is told, and the others are made all the same.

    Args:
        root: The checkout.
        targets: Versions; none: everything.
        addresses: Other stores.
        again: Run the stages of versions whose bytes have no copy.
        workers: Objects read at once.
        begin: Is told how much there is to read.
        say: Is told each repair.
        tell: Is told how far the making is.
    """

    def look(folders: Sequence[Path]) -> tuple[Verified, list[Repair]]:
        return verify_and_repair(
            root, targets, addresses=addresses, folders=folders, workers=workers, begin=begin, say=say
        )

    found, repairs = look(())
    made: set[str] = set()
    failed: set[str] = set()
    not_made: list[str] = []
    while again and (left := _wanted(found, failed) - made):
        version = min(left)
        try:
            attempt = prepared(root, *parsed(version))
            with alone_with(attempt):
                try:
                    _make(attempt, tell)
                    store = attempt.tree / ".recstill" / "store"
                    folders = [attempt.tree / "artifacts", *([store] if store.is_dir() else [])]
                    found, more = look(folders)
                finally:
                    attempt.remove()
        except RecstillError as error:
            failed.add(version)
            not_made.append(f"{version} cannot be made again: {error}")
            tell(not_made[-1])
            continue
        made.add(version)
        repairs = [one for one in repairs if one.done] + more
    return Repaired(found, repairs, not_made)


def _make(attempt: Attempt, tell: Say) -> None:
    """Run its stages, in a thread of its own: in the main one, DVC would keep a Ctrl-C from what runs it."""
    with prompt_end(last=attempt.remove), ThreadPoolExecutor(1) as thread:
        thread.submit(run, attempt, tell, lambda stage: None, lambda result: None).result()


def _wanted(found: Verified, failed: Collection[str]) -> set[str]:
    """Versions that miss bytes which their stages made: of each object the newest that has not failed to be made."""
    wanted = set()
    for one in found.damaged:
        if one.place == "remote" or one.object.startswith(("packages/", "soft-labels/")):
            wanted.update([version for version in one.versions if version not in failed][-1:])
    return wanted
