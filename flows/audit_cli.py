"""``recstill audit``: read back and re-hash every release, now."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the main app."""
    app.command()(audit)


def audit() -> None:
    """Read back and re-hash every registered release, and its bytes in DVC's remote; exit status 1 on a finding."""
    from flows.console import Console
    from flows.repository import enter_checkout
    from flows.running import prefer_quiet_prefect

    prefer_quiet_prefect()
    root = enter_checkout()
    console = Console()
    from flows.audit import survey

    findings = survey(root, lambda finding: console.say(str(finding), style="red" if finding.problems else ""))
    bad = sum(bool(finding.problems) for finding in findings)
    console.say(f"{len(findings)} releases looked at, {bad} not whole", style="bold red" if bad else "bold")
    if bad:
        raise typer.Exit(1)
