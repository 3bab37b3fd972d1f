"""``recstill deploy``, ``rollback`` and ``versions``: what is live, by hand. They need no Prefect server."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A model; it has its scenario's name.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the main app."""
    app.command()(deploy)
    app.command()(rollback)
    app.command()(versions)


def deploy(
    target: Annotated[str, typer.Argument(metavar="NAME[@vN]", help="A version; without @vN the newest.")],
    *,
    approve_by: Annotated[
        str | None, typer.Option("--approve-by", metavar="WHO", help="Who approves; recorded with the switch.")
    ] = None,
    why: Annotated[str, typer.Option("--why", help="The reason; recorded with the switch.")] = "",
    canary: Annotated[
        float | None,
        typer.Option("--canary", metavar="SHARE", help="First let it answer this share of a service's requests."),
    ] = None,
    shadow: Annotated[bool, typer.Option("--shadow", help="First ask it too, without showing its answers.")] = False,
    seconds: Annotated[float, typer.Option("--for", metavar="SECONDS", help="How long it is tried.")] = 60,
    service: Annotated[
        str | None, typer.Option("--service", metavar="URL", help="The running service in which it is tried.")
    ] = None,
) -> None:
    """Bring a registered version live: verify it, ask it, time it, try it, then switch."""
    from flows.console import Console
    from flows.promoting import Order, bring_live
    from flows.registry import parsed
    from flows.trial_run import planned

    if canary is not None and shadow:
        raise DataError("--canary and --shadow exclude each other", "Choose one.")
    mode = "canary" if canary is not None else "shadow" if shadow else None
    if mode is None and service is not None:
        raise DataError("--service is given, and nothing to try", "Add --canary 0.1 or --shadow.")
    plan = planned(mode, 1.0 if canary is None else canary, seconds, service)
    name, version = parsed(target)
    bring_live(_checkout(), Order(name, version, None, plan, approve_by or "", why), Console().say)


def rollback(
    name: NameArgument,
    to: Annotated[str | None, typer.Option("--to", metavar="vN", help="A version that was live once.")] = None,
    reason: Annotated[str, typer.Option("--reason", help="The reason; recorded with the switch.")] = "",
) -> None:
    """Go back, within seconds, to the version that was live before."""
    from flows.console import Console
    from flows.registry import parsed
    from flows.repository import identity, store_of
    from flows.switching import mark_stage, roll_back, tell_switch

    root, say = _checkout(), Console().say
    name, named = parsed(name)
    if named is not None:
        raise DataError(
            f"a rollback of {name}@v{named}: to it, or away from it?", f"`recstill rollback {name} --to v{named}`"
        )
    if to is not None and re.fullmatch(r"v?[1-9]\d{0,8}", to) is None:
        raise DataError(f"--to {to!r} is no version", "Write it as v2.")
    number = int(to.removeprefix("v")) if to is not None else None
    switch = roll_back(root, name, number, who=identity(root).name, why=reason, say=say)
    say(f"{name}@v{switch.version} is live again (switch {switch.number}), before it v{switch.previous}", style="green")
    # The service is on its way back already; this may take the time it takes.
    tell_switch(store_of(root), switch, say)
    mark_stage(root, store_of(root), name, say, seconds=2)


def versions(
    name: NameArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Every version of a model: when it was made, of which commit, what the gate said, what is live and recalled."""
    from flows.console import Console
    from flows.versions import history_lines, log_problems, version_rows

    root, console = _checkout(), Console()
    rows, live = version_rows(root, name)
    problems = log_problems(root, name)
    if as_json:
        console.document({"name": name, "live": live, "versions": rows, "problems": problems})
        return
    console.table(_table(rows))
    for row in rows:
        for line in row["recalled"]:
            console.say(f"v{row['version']} is recalled: {line}", style="bold red")
    for problem in problems:
        console.say(problem, style="bold red")
    for line in history_lines(root, name):
        console.say(line)


def _table(rows: list[dict[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("version", "state", "made", "commit", "gate", "tag", "attestation"):
        table.add_column(title, no_wrap=title != "gate", overflow="fold")
    styles = {"live": "bold green", "before": "cyan", "damaged": "bold red", "missing": "bold red"}
    for row in rows:
        state, style = row["state"], styles.get(row["state"], "")
        if row["recalled"]:
            state, style = f"{state}, recalled", "bold red"
        cells = (f"v{row['version']}", state, row["created"], row["commit"][:12], row["gate"], row["tag"])
        table.add_row(*(Text(cell) for cell in (*cells, row["attestation"][:12])), style=style)
    return table


def _checkout() -> Path:
    from flows.repository import enter_checkout

    return enter_checkout()
