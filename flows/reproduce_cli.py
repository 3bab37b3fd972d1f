"""``recstill reproduce``: make a version again from its commit, and compare."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flows.auditing.reproducing import Attempt, Reproduction
    from flows.console import Console


def register(app: typer.Typer) -> None:
    """Add the command to the main app."""
    app.command()(reproduce)


def reproduce(
    target: Annotated[str, typer.Argument(metavar="NAME[@vN]", help="A version; without @vN the newest.")],
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the worktree; after a difference it is kept anyway.")
    ] = False,
    absolute: Annotated[
        float, typer.Option("--tolerance", min=0, help="How far a quality figure may differ when weights do.")
    ] = 0.02,
    relative: Annotated[
        float, typer.Option("--relative", min=0, help="The same, as a share of the first value; the wider one counts.")
    ] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Run every stage of a version again, from its commit, with empty caches, and compare every file.

    Exit status 0: every byte is the same, but for times and memory, which are measured anew. 3: bytes differ; it is
    said in which files, why that may be, and whether the quality figures are within the tolerance.
    """
    from flows.auditing.comparing import Tolerance
    from flows.auditing.exit_status import FOUND
    from flows.auditing.reproducing import alone_with, compared, prepared, run
    from flows.console import Console
    from flows.interruption import prompt_end
    from flows.only_document import output_to_errors
    from flows.registry import parsed
    from flows.repository import enter_checkout

    started = time.monotonic()
    # `python` in dvc.yaml shall be the interpreter that runs this command, activated or not.
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    root, console = enter_checkout(), Console()
    attempt = prepared(root, *parsed(target))

    def made() -> Reproduction:
        with output_to_errors(as_json):
            run(attempt, console.say, lambda stage: console.begins(stage.address, stage.description), console.ends)
            return compared(attempt, Tolerance(absolute, relative), time.monotonic() - started)

    # Whoever is told that another one is at work must not take that one's worktree away.
    with alone_with(attempt):
        try:
            # In a thread of its own: in the main one, DVC would keep a Ctrl-C from what runs it.
            with prompt_end(last=attempt.remove), ThreadPoolExecutor(1) as thread:
                found = thread.submit(made).result()
        except BaseException:
            _end(attempt, keep)
            raise
        kept = keep or found.ending != "identical"
        _end(attempt, kept)
    if as_json:
        console.document(_record(found, kept, attempt))
    else:
        _told(console, found, kept)
    if found.ending != "identical":
        raise typer.Exit(FOUND)


def _end(attempt: Attempt, keep: bool) -> None:
    if not keep:
        attempt.remove()


def _told(console: Console, found: Reproduction, kept: bool) -> None:
    shown = f"{found.name}@v{found.version}"
    for one in found.files:
        if one.verdict not in ("identical", "measured"):
            console.say(f"{one.path}: {one.verdict}: {one.reason}", style="yellow")
    for name, (first, again, near) in found.figures.items():
        console.say(f"{name}: {first!r} -> {again!r}", style="yellow" if near else "red")
    for reason in found.reasons:
        console.say(f"may be why: {reason}")
    same, measured = found.count("identical"), found.count("measured")
    console.say(
        f"{len(found.files)} files: {same} identical, {measured} that differ in times and memory only, "
        f"{len(found.files) - same - measured} others"
    )
    endings = {
        "identical": f"{shown} was made again, bit for bit but for what is measured anew; {found.seconds:.0f} s",
        "within tolerance": f"{shown} was made again with other bytes; every figure is within {found.tolerance}",
        "different": f"{shown} was not made again: what came out is another model",
    }
    console.say(endings[found.ending], style="green" if found.ending == "identical" else "bold red")
    if kept:
        console.say(f"kept: {found.worktree}")


def _record(found: Reproduction, kept: bool, attempt: Attempt) -> dict[str, Any]:
    from flows.auditing.reproducing import stages_told

    return {
        "name": found.name,
        "version": found.version,
        "commit": found.commit,
        "ending": found.ending,
        "identical": found.ending == "identical",
        "tolerance": {"absolute": found.tolerance.absolute, "relative": found.tolerance.relative},
        "files": [
            {"path": one.path, "verdict": one.verdict, "reason": one.reason, "measured": one.measured}
            for one in found.files
        ],
        "figures": [
            {"figure": name, "first": first, "again": again, "within_tolerance": near}
            for name, (first, again, near) in found.figures.items()
        ],
        "reasons": list(found.reasons),
        "seconds": round(found.seconds, 1),
        "stages": stages_told(attempt.results),
        "worktree": str(found.worktree) if kept else None,
    }
