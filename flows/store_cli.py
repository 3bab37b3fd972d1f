"""``recstill store``: the object store itself."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.errors import SettingsError, StorageError

if TYPE_CHECKING:
    from components.soft_labels.collecting import Unreachable
    from components.storage.contract import ObjectStore
    from flows.cache_use import Usage

app = typer.Typer(
    help="The object store (RECSTILL_STORE).",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@app.callback()
def _store() -> None:
    """The object store (RECSTILL_STORE)."""


@app.command()
def gc(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only name what would be deleted.")] = False,
    older_than: Annotated[
        str,
        typer.Option(
            "--older-than",
            metavar="AGE",
            help="Leave what is younger, since a writer may be at work: 90m, 24h, 7d.",
        ),
    ] = "24h",
    unreferenced: Annotated[
        bool,
        typer.Option(
            "--unreferenced",
            help="Whole caches too that nothing in this repository refers to. Other repositories that share the store "
            "are not known here: use it only on a store of your own.",
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="With --unreferenced: go on although it is not known which cache some branch, plain tag or workspace "
            "uses. Of a registered version it must be known.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before deleting.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; needs --dry-run or --yes.")] = False,
) -> None:
    """Delete what nobody can reach any more, after naming it.

    These are parts and records that the manifest of a complete cache does not name (left by writers that lost a race),
    all of a cache that was never finished, inputs of Dask workers, temporary files and unfinished uploads of killed
    writers: below soft-labels/ only, and only when old enough. Nothing of a cache that a registered version needs.
    """
    from flows.cache_tables import counted, size, unreachable_line, unreachable_record
    from flows.console import Console
    from flows.deleting import delete_all

    seconds = _seconds(older_than)
    if as_json and not (dry_run or yes):
        raise SettingsError("--json asks nothing", "Give --dry-run to name what would be deleted, or --yes.")
    root, store = _opened()
    console = Console()
    found, usage = _unreachable(root, store, seconds, unreferenced, force)
    record = {"store": store.address, "unreachable": [unreachable_record(one) for one in found], "deleted": 0}
    if not as_json:
        for version in usage.unknown(versions=True):
            console.say(f"not known which cache {version} needs: every cache is left as it is", style="yellow")
        for one in found:
            console.say(unreachable_line(one))
        total = size(sum(one.entry.bytes for one in found))
        console.say(f"{counted(len(found), 'unreachable object')}, {total}, in {store.address}", style="bold")
    if found and not dry_run:
        if unreferenced and not as_json:
            console.say("This repository alone was asked what it uses; others may share this store.", style="yellow")
        if not yes:
            if not console.agrees("Delete them?"):
                raise typer.Exit(1)
            # The answer may have taken its time: what has been written or put to use since is left.
            named = {one.entry for one in found}
            found = [one for one in _unreachable(root, store, seconds, unreferenced, force)[0] if one.entry in named]
        record["deleted"] = delete_all(console, store, found, "the same command", quiet=as_json)
        _require_unharmed(store, found)
    if as_json:
        console.document(record)


def _unreachable(
    root: Path, store: ObjectStore, seconds: float, unreferenced: bool, force: bool
) -> tuple[list[Unreachable], Usage]:
    from components.soft_labels.collecting import unreachable
    from flows.cache_use import survey

    caches, usage = survey(root, store)
    if unreferenced:
        usage.require_known(force=force)
    found = unreachable(
        store,
        caches,
        before=time.time() - seconds,
        untouchable=usage.is_pinned,
        unreferenced=lambda cache: unreferenced and not usage.of(cache.id),
    )
    return found, usage


def _require_unharmed(store: ObjectStore, deleted: list[Unreachable]) -> None:
    """Tell of a writer that came back, after a long time, to a cache that was being deleted, and has finished it."""
    from components.soft_labels.inventory import SHOWN_ID, read_caches

    keys = {one.entry.key for one in deleted}
    harmed = [
        cache.id[:SHOWN_ID]
        for cache in read_caches(store)
        if cache.manifest and cache.problem and keys & {cache.key(part.name) for part in cache.manifest.parts}
    ]
    if harmed:
        raise StorageError(
            f"a writer went on with {', '.join(harmed)} while old parts of it were deleted",
            "Heal it: `recstill soft-labels build SCENARIO --force`.",
        )


def _opened() -> tuple[Path, ObjectStore]:
    from components.storage.object_store import open_store
    from flows.repository import enter_checkout

    root = enter_checkout()
    return root, open_store()


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text.strip())
    if found is None or (not found[2] and float(found[1]) != 0):
        raise SettingsError(f"--older-than {text!r} is no age", "Write a number and a unit: 90m, 24h, 7d.")
    return float(found[1]) * _UNITS.get(found[2], 0)
