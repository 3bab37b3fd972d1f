"""``recstill history``: what happened to a model, and what was live at a time."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flows.auditing.model_history import Event

_STYLES = {"deploy": "green", "rollback": "yellow", "refused": "dim", "recall": "bold red", "lift": "cyan"}


def register(app: typer.Typer) -> None:
    """Add the command to the main app."""
    app.command()(history)


def history(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model; it has its scenario's name.")],
    *,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="DATE", help="What was live then: 2026-05-03 (its end, UTC), or an instant."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """What was registered, refused, live, rolled back and recalled: when, who, why, and the gate's figures."""
    from flows.auditing.lineage import place
    from flows.auditing.model_history import history_of, moment_of, parsed_moment
    from flows.console import Console

    moment = None if at is None else parsed_moment(at)
    found = history_of(place(), name)
    live = None if moment is None else found.live_at(moment)
    console = Console()
    if as_json:
        document: dict[str, Any] = {"name": name, "events": [asdict(one) for one in found.events], "notes": found.notes}
        if moment is not None:
            document |= {"at": moment.isoformat(), "live": asdict(live) if live else None}
        console.document(document)
        return
    for note in found.notes:
        console.say(f"! {note}", style="yellow")
    if moment is not None:
        when = moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
        if live is None:
            console.say(f"nothing of {name} was live at {when}")
            return
        console.say(f"{name}@v{live.version} was live at {when}", style="bold green")
        console.say(f"  since {_when(live.at)}, by {live.who}: {live.kind}{f', {live.why}' if live.why else ''}")
        for one in found.events:
            if one.kind == "registered" and one.version == live.version:
                console.say(f"  registered {_when(one.at)} by {one.who or 'nobody known'}; {_gate(one.gate)}")
            if one.kind == "recall" and one.version == live.version:
                then = "before" if moment_of(one.at) <= moment else "later"
                console.say(f"  recalled {then}, {_when(one.at)}, by {one.who}: {one.why}", style="bold red")
        return
    _table(name, found.events)


def _table(name: str, events: list[Event]) -> None:
    from rich.table import Table
    from rich.text import Text

    from flows.console import Console

    table = Table(box=None, pad_edge=False)
    for title in ("when (UTC)", "what", "version", "who", "gate", "why"):
        table.add_column(title, overflow="fold")
    for one in events:
        version = f"{name}@v{one.version}" if one.version is not None else ""
        why = Text(one.problem or one.why, "red" if one.problem else "")
        what = Text(one.kind, _STYLES.get(one.kind, ""))
        table.add_row(Text(_when(one.at)), what, Text(version), Text(one.who), Text(_gate(one.gate)), why)
    Console().table(table)


def _gate(gate: dict[str, Any]) -> str:
    """The figures of a verdict in a few words."""
    own, champion, difference = gate.get("challenger") or {}, gate.get("champion") or {}, gate.get("difference") or {}
    if not gate:
        return ""
    parts = ["passed" if gate.get("passed") else "refused"]
    measure = gate.get("measure") or {"key": "ndcg10", "title": "NDCG@10"}  # verdicts from before it was named
    if own.get(measure["key"]) is not None:
        parts.append(f"{measure['title']} {own[measure['key']]:.4f}")
    if champion.get(measure["key"]) is not None:
        parts.append(f"v{champion.get('version')} {champion[measure['key']]:.4f}")
    if difference.get("estimate") is not None:
        parts.append(f"{difference['estimate']:+.4f} [{difference['low']:+.4f}, {difference['high']:+.4f}]")
    return ", ".join(parts)


def _when(text: str) -> str:
    from flows.auditing.model_history import moment_of

    return moment_of(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M") if text else ""
