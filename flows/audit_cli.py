"""``recstill audit``: verify everything now, and say on one page how it stands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flows.auditing.reporting import Report
    from flows.console import Console


def register(app: typer.Typer) -> None:
    """Add the command to the main app."""
    app.command()(audit)


def audit(
    *,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report as one page that needs no network.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=256, help="Objects read at once; else one a core.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Verify every registered version, and show the state of each: what is live, recalled, damaged; findings first.

    Exit status 0: all is well. 3: something was found, or what is live is recalled. 1: it could not be done.
    """
    from components.errors import SettingsError
    from components.storage.atomic import new_file, temporary_file
    from flows.auditing.exit_status import FOUND
    from flows.auditing.progress import ByteProgress
    from flows.auditing.reporting import audit_report
    from flows.console import Console
    from flows.repository import enter_checkout

    target = html.resolve() if html is not None else None
    if target is not None:  # now, and not when everything has been read
        if target.is_dir():
            raise SettingsError(f"{target} is a folder", "Name a file with --html, such as audit.html.")
        with temporary_file(target):
            pass
    root = enter_checkout()
    with ByteProgress("audit", show=not as_json) as progress:
        report = audit_report(root, workers=workers, begin=progress.begin)
    if target is not None:
        from flows.auditing.audit_page import html_page

        with new_file(target) as temporary:
            temporary.write_text(html_page(report), encoding="utf-8")
    if as_json:
        Console().document(report.record)
    else:
        _tell(Console(), report)
        if target is not None:
            Console().say(f"report: {target}")
    if report.verified.damaged or report.recalled_live:
        raise typer.Exit(FOUND)


def _tell(console: Console, report: Report) -> None:
    from rich.table import Table
    from rich.text import Text

    from flows.cache_tables import counted, size

    for finding in report.verified.findings:
        damage = finding.severity == "damage"
        console.say(f"{'✗' if damage else '·'} {finding}", style="red" if damage else "yellow")
        if finding.remedy:
            console.say(f"    {finding.remedy}", style="dim")
    table = Table(box=None, pad_edge=False)
    for title in ("version", "", "state", "made", "commit", "gate", "attested", "recalled"):
        table.add_column(title, overflow="fold")
    for one in report.versions:
        style = "bold red" if one.recalls or not one.whole else "bold green" if one.live else ""
        cells = (one.state, one.created[:16], one.commit[:12], one.gate, one.origin, "; ".join(one.recalls))
        table.add_row(Text(str(one)), Text("whole" if one.whole else "not whole"), *map(Text, cells), style=style)
    if report.versions:
        console.table(table)
    bad = sum(not one.whole for one in report.versions)
    read = f"{counted(report.verified.objects, 'object')}, {size(report.verified.bytes)} read and hashed"
    console.say(
        f"{counted(len(report.versions), 'version')} looked at, {bad} not whole; {read} in "
        f"{report.verified.seconds:.1f} s",
        style="bold red" if bad or report.recalled_live else "bold",
    )
