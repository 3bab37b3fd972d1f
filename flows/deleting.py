"""Deleting what was named, told as it goes; an interruption says what is left and how to go on."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from components.soft_labels.collecting import Unreachable, delete
from components.storage.contract import ObjectStore
from flows.cache_tables import counted, size
from flows.console import Console


def delete_all(
    console: Console, store: ObjectStore, found: Sequence[Unreachable], command: str, *, quiet: bool = False
) -> int:
    """Delete objects in their order and say how many are gone.

    Args:
        console: Where it is said.
        store: Where they are.
        found: What goes.
        command: What to run again after an interruption.
        quiet: Say nothing unless it is interrupted.

    Returns:
        How many are gone.

    Raises:
        StorageError: The store cannot be written.
        typer.Exit: Interrupted, with status 130.
    """
    gone = 0
    freed = 0
    try:
        for one in delete(store, found):
            gone += 1
            freed += one.entry.bytes
    except KeyboardInterrupt:
        typer.echo(f"\ninterrupted: {gone} of {len(found)} objects are deleted, {command} goes on", err=True)
        raise typer.Exit(130) from None
    if not quiet:
        console.say(f"deleted {counted(gone, 'object')}, {size(freed)}", style="bold")
    return gone
