"""``recstill impact``: what came of a data set, a teacher, a source, or any other bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flows.auditing.impact import Impact
    from flows.console import Console


def register(app: typer.Typer) -> None:
    """Add the command to the main app."""
    app.command()(impact)


def impact(
    what: Annotated[
        str,
        typer.Argument(
            metavar="DATASET@REV|DIGEST|NAME@vN|FILE",
            help="The data set of a scenario at a revision, such as movielens@main; a digest or its first 8 digits; "
            "a version; a file or folder by its bytes.",
            show_default=False,
        ),
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Everything that descends from something: live versions first, then others, then what is in no version.

    By content, so that it crosses scenarios, branches and warm starts. A module of code or a source file can be asked
    about too. Exit status 0 also when nothing descends; 1 when it is not known.
    """
    start = Path.cwd()
    from flows.auditing.impact import impact as impact_of
    from flows.auditing.lineage import Lineage, place
    from flows.auditing.resolving import resolve
    from flows.console import Console

    asked = start / what if what and (start / what).exists() else what
    lineage = Lineage(place())
    subject = resolve(lineage, str(asked))
    subject.text = what
    found = impact_of(lineage, subject)
    console = Console()
    if as_json:
        console.document(found.record())
    else:
        _show(console, found)


def _show(console: Console, found: Impact) -> None:
    from rich.table import Table
    from rich.text import Text

    console.say(found.subject.what, style="bold")
    for note in found.notes:
        console.say(f"! {note}", style="yellow")
    live = sum(one.state == "live" for one in found.versions)
    console.say(
        f"{len(found.versions)} versions descend from it, {live} of them live; {len(found.artifacts)} artifacts that "
        f"are in no version; {found.runs} runs of stages"
    )
    if found.versions:
        table = Table(box=None, pad_edge=False)
        for title in ("version", "state", "made", "commit", "through", ""):
            table.add_column(title, overflow="fold")
        for one in found.versions:
            recalled = "; ".join(f"RECALLED: {recall.reason}" for recall in one.recalls)
            state = Text(one.state, "green" if one.state == "live" else "red" if one.state == "missing" else "")
            cells = (str(one), state, one.made[:16].replace("T", " "), one.commit[:12], ", ".join(one.through))
            remark = Text("; ".join(filter(None, (recalled, one.problem))), "red")
            table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in cells), remark)
        console.table(table)
    if found.artifacts:
        table = Table(box=None, pad_edge=False)
        for title in ("in no version", "scenario", "MD5", "made by", "where"):
            table.add_column(title, overflow="fold")
        for artifact in found.artifacts:
            where = ", ".join(artifact.where[:3]) + (f" and {len(artifact.where) - 3} more" * (len(artifact.where) > 3))
            table.add_row(*map(Text, (artifact.kind, artifact.scenario, artifact.md5[:12], artifact.stage, where)))
        console.table(table)
    for scenario, key in found.refused:
        console.say(f"refused by the gate, never registered: {scenario}, run {key[:12]}")
