"""``recstill verify``: is every byte of every registered version there and unchanged?"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flows.auditing.repairing import Repair
    from flows.auditing.verifying import Verified
    from flows.console import Console


def register(app: typer.Typer) -> None:
    """Add the command to the main app."""
    app.command()(verify)


def verify(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME[@vN]...]", help="Versions, or models for all of theirs; none: everything."),
    ] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Everything; the same as naming nothing.")] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=256, help="Objects read at once; else one a core.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--fresh",
            help="Go on from what an interrupted run of the last 24 hours has found good, or read everything.",
        ),
    ] = True,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Put back what there is a sound copy of: in DVC's cache, in work trees, in what --from names.",
        ),
    ] = False,
    addresses: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="STORE", help="Another store to repair from: s3://..., file:///..., a folder."),
    ] = None,
    reproduce: Annotated[
        bool,
        typer.Option("--reproduce", help="With --repair: make versions again whose bytes have no copy (minutes each)."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Read and hash every byte of registered versions, in DVC's remote and the store, and check every signature.

    Exit status 0: all is well. 3: something was found. 1: it could not be done. Interrupted, it goes on where it was.
    """
    from components.errors import SettingsError
    from flows.auditing.exit_status import FOUND
    from flows.auditing.making_again import repaired
    from flows.auditing.progress import ByteProgress
    from flows.auditing.verifying import verify as verify_versions
    from flows.console import Console
    from flows.only_document import output_to_errors
    from flows.repository import enter_checkout

    if (addresses or reproduce) and not repair:
        raise SettingsError("--from and --reproduce say how to repair", "Add --repair.")
    if everything and targets:
        raise SettingsError("--all and versions exclude each other", "Give one of them.")
    root = enter_checkout()
    repairs: list[Repair] = []
    not_made: list[str] = []
    with ByteProgress("verify", show=not as_json) as progress, output_to_errors(as_json):
        if repair:
            say = (lambda one: None) if as_json else partial(_tell_repair, Console())
            found, repairs, not_made = repaired(
                root, targets or (), addresses=addresses or (), again=reproduce, workers=workers,
                begin=progress.begin, say=say, tell=lambda line: typer.echo(line, err=True),
            )  # fmt: skip
        else:
            found = verify_versions(root, targets or (), workers=workers, resume=resume, begin=progress.begin)
    if as_json:
        told = [_repair_record(one) for one in repairs]
        Console().document({**_record(found), "repairs": told, "not_made_again": not_made})
    else:
        _tell(Console(), found)
    if found.damaged:
        raise typer.Exit(FOUND)


def _repair_record(one: Repair) -> dict[str, Any]:
    return {"place": one.finding.place, "object": one.finding.object, "what": one.finding.what, "from": one.source}


def _tell_repair(console: Console, one: Repair) -> None:
    console.say(f"{'✓' if one.done else '✗'} {one}", style="green" if one.done else "red")


def _record(found: Verified) -> dict[str, Any]:
    return {
        "versions": list(found.versions),
        "objects": found.objects,
        "bytes": found.bytes,
        "bytes_of_an_interrupted_run": found.reused,
        "seconds": round(found.seconds, 3),
        "damage": len(found.damaged),
        "notes": len(found.findings) - len(found.damaged),
        "findings": [finding.record for finding in found.findings],
    }


def _tell(console: Console, found: Verified) -> None:
    from flows.cache_tables import counted, size

    for finding in found.findings:
        damage = finding.severity == "damage"
        console.say(f"{'✗' if damage else '·'} {finding}", style="red" if damage else "yellow")
        if finding.remedy:
            console.say(f"    {finding.remedy}", style="dim")
    rate = f", {size(int(found.bytes / found.seconds))}/s" if found.bytes and found.seconds > 1 else ""
    again = f", {size(found.reused)} of it by an interrupted run" if found.reused else ""
    console.say(
        f"{counted(len(found.versions), 'version')}: {counted(found.objects, 'object')}, {size(found.bytes)} read and "
        f"hashed{again}, in {found.seconds:.1f} s{rate}"
    )
    notes = len(found.findings) - len(found.damaged)
    if found.damaged:
        console.say(f"{counted(len(found.damaged), 'damage')} found, {counted(notes, 'note')}", style="bold red")
    else:
        told = f"; {counted(notes, 'note')}" if notes else ""
        console.say(f"every byte is as it was written{told}", style="bold green")
