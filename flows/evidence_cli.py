"""``recstill evidence``: a folder that a third party can check offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the main app."""
    app.command()(evidence)


def evidence(
    target: Annotated[str, typer.Argument(metavar="NAME[@vN]", help="A version; without @vN the newest.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Where to [default: .recstill/evidence/NAME-vN]."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write what shows where a version comes from into one folder, with a README that says how to check it.

    Package, signed attestation, statements of all stages, bill of materials, public keys, dvc.lock with its commit, the
    log of what was live, the gate's verdict. sha256sum, openssl and git check it, offline and without Recstill.
    Exit status 3: it was written, and lock, statements, release and bill contradict each other, or it is recalled.
    """
    from flows.auditing.evidence import README, write_evidence
    from flows.auditing.exit_status import FOUND
    from flows.console import Console
    from flows.registry import parsed
    from flows.repository import enter_checkout

    there = out.absolute() if out is not None else None  # as seen from where the command was given
    found = write_evidence(enter_checkout(), *parsed(target), there)
    console = Console()
    if as_json:
        console.document(
            {
                "version": str(found.release),
                "folder": str(found.folder),
                "attestation": found.release.attestation,
                "signed_by": found.release.signed_by,
                "files": found.files,
                "problems": found.problems,
                "recalled": [one.reason for one in found.recalled],
            }
        )
    else:
        console.say(f"{found.release}: {len(found.files)} files in {found.folder}")
        for problem in found.problems:
            console.say(problem, style="bold red")
        for one in found.recalled:
            console.say(f"recalled: {one.reason}", style="bold red")
        console.say(f"{found.folder / README} says how anybody can check it")
    if found.problems or found.recalled:
        raise typer.Exit(FOUND)
