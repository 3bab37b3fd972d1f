"""Repairing by making a version again: its stages run in a worktree of their own, and what comes out is a copy.

Only what is the same by its digest is put back, so that a stage that does not give the same bytes again harms nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from components.errors import RecstillError
from flows.auditing.repairing import Repair
from flows.auditing.reproducing import alone_with, prepared, run
from flows.auditing.verifying import Begin, Verified, verify_and_repair
from flows.registry import parsed


def repaired(
    root: Path,
    targets: Sequence[str],
    *,
    addresses: Sequence[str],
    again: bool,
    workers: int | None,
    begin: Begin,
    say: Callable[[Repair], None],
) -> tuple[Verified, list[Repair]]:
    """Verify and repair from copies; what has none is made again, if that is wished.

    Args:
        root: The checkout.
        targets: Versions; none: everything.
        addresses: Other stores.
        again: Run the stages of versions whose bytes have no copy.
        workers: Objects read at once.
        begin: Is told how much there is to read.
        say: Is told each repair.
    """

    def look(folders: Sequence[Path]) -> tuple[Verified, list[Repair]]:
        return verify_and_repair(
            root, targets, addresses=addresses, folders=folders, workers=workers, begin=begin, say=say
        )

    found, repairs = look(())
    for version in _wanted(found) if again else ():
        name, number = parsed(version)
        attempt = prepared(root, name, number)
        try:
            with alone_with(attempt):
                run(attempt, lambda line: None, lambda stage: None, lambda result: None)
                store = attempt.tree / ".recstill" / "store"
                folders = [attempt.tree / "artifacts", *([store] if store.is_dir() else [])]
                found, more = look(folders)
        except RecstillError as error:
            raise type(error)(f"{version} cannot be made again: {error.message}", error.remedy) from None
        finally:
            attempt.remove()
        repairs = [one for one in repairs if one.done] + more
        if not _wanted(found):
            break
    return found, repairs


def _wanted(found: Verified) -> list[str]:
    """Versions that miss bytes which their stages made, one for each object."""
    wanted = [
        one.versions[-1]
        for one in found.damaged
        if one.versions and (one.place == "remote" or one.object.startswith(("packages/", "soft-labels/")))
    ]
    return sorted(set(wanted))
