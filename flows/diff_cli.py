"""``recstill diff``: what is different between two versions, or two artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flows.auditing.differences import Comparison

_SHOWN = 12


def register(app: typer.Typer) -> None:
    """Add the command to the main app."""
    app.command()(diff)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="NAME@vN, a digest, SCENARIO@REV, a file or folder.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """What is different between two versions: data, parameters, code, metrics, bytes, latency, lineage.

    Digests and revisions are compared by the chains that they came from. Exit status 0: nothing differs; 3: something.
    """
    start = Path.cwd()
    from flows.auditing.differences import compare
    from flows.auditing.exit_status import FOUND
    from flows.auditing.lineage import Lineage, place
    from flows.auditing.resolving import resolve
    from flows.console import Console

    paths = [str(start / one) if one and (start / one).exists() else one for one in (a, b)]
    lineage = Lineage(place())
    subjects = [resolve(lineage, one) for one in paths]
    for subject, text in zip(subjects, (a, b), strict=True):
        subject.text = text
    found = compare(lineage, *subjects)
    if as_json:
        Console().document(found.record())
    else:
        _show(found)
    if found.differences:
        raise typer.Exit(FOUND)


def _show(found: Comparison) -> None:
    from rich.table import Table
    from rich.text import Text

    from flows.console import Console

    console = Console()
    for note in found.notes:
        console.say(f"! {note}", style="yellow")
    if not found.differences:
        console.say(f"{found.sides[0].text} and {found.sides[1].text}: nothing differs", style="green")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("", "what", found.sides[0].text, found.sides[1].text, "change"):
        table.add_column(title, overflow="fold")
    part = ""
    for one in found.differences:
        head = one.part if one.part != part else ""
        part = one.part
        change = _change(one.before, one.after)
        table.add_row(
            Text(head, "bold"), Text(one.name), Text(_shown(one.before)), Text(_shown(one.after)), Text(change)
        )
    console.table(table)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    text = str(value)
    return text[:_SHOWN] if len(text) in (64, 40, 36, 32) and " " not in text else text


def _change(before: Any, after: Any) -> str:
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (before, after))
    return f"{after - before:+.6g}" if numbers else ""
