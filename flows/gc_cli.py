"""``recstill gc``: name what nobody needs, and, later, delete exactly that. It takes the place of ``dvc gc``."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.errors import RecstillError, SettingsError

if TYPE_CHECKING:
    from flows.auditing.collection import Plan, Unneeded
    from flows.auditing.places import Places
    from flows.console import Console

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SHOWN = 12
_LISTED = 20
_TITLES = {
    "tree": "work trees",
    "store": "objects in the store",
    "cache": "objects in DVC's cache",
    "remote": "objects in DVC's remote",
}


def register(app: typer.Typer) -> None:
    """Add the command to the main app."""
    app.command(name="gc")(collect)


def collect(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Name it, and write no plan.")] = False,
    confirm: Annotated[
        str | None, typer.Option("--confirm", metavar="PLAN", help="Delete what this plan names, by its first digits.")
    ] = None,
    wait: Annotated[
        str, typer.Option("--wait", metavar="AGE", help="How old a plan has to be before it is carried out.")
    ] = "24h",
    now: Annotated[bool, typer.Option("--now", help="Do not wait.")] = False,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Leave alone what was written later: 90m, 24h, 7d.")
    ] = "24h",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Name what nobody needs, in DVC's cache and remote, the store, and old work trees; with --confirm, delete it.

    Needed is what a registered version, the tip of a branch or tag, a work tree or a recall names. The first call
    writes a plan. The second one, a day later, deletes what that plan names and nobody needs still, while no retraining
    can begin, and writes a signed receipt. `dvc gc` knows nothing of registered versions: do not use it.
    """
    from flows.auditing.collection import read_plan, unneeded, write_plan
    from flows.auditing.places import opened_places
    from flows.console import Console
    from flows.repository import enter_checkout

    root, console = enter_checkout(), Console()
    age = _age(older_than, "--older-than")
    if confirm is not None:
        plan = read_plan(root, confirm)
        _require_ripe(console, plan, timedelta() if now else _age(wait, "--wait"), quiet=as_json)
        with opened_places(root) as places:
            record = _carried_out(root, console, places, plan, age, quiet=as_json)
        if as_json:
            console.document(record)
        return
    with opened_places(root) as places:
        found = unneeded(places, older_than=age)
    made = write_plan(root, found) if found and not dry_run else None
    if as_json:
        console.document(
            {
                "plan": made.id if made else None,
                "created": made.created if made else None,
                "bytes": sum(one.bytes for one in found),
                "objects": [vars(one) for one in found],
            }
        )
        return
    _told(console, found)
    if made is not None:
        ripe = made.ripe(_age(wait, "--wait"))
        console.say(f"plan {made.id[:_SHOWN]}: nothing was deleted", style="bold")
        console.say(f"from {ripe:%Y-%m-%d %H:%M} UTC on: recstill gc --confirm {made.id[:_SHOWN]}")
        console.say("This repository alone was asked; others may share the store or DVC's remote.", style="yellow")


def _carried_out(
    root: Path, console: Console, places: Places, plan: Plan, age: timedelta, *, quiet: bool
) -> dict[str, Any]:
    from rich.progress import Progress

    from flows.auditing.collection import collect as carry_out
    from flows.cache_tables import counted, size
    from flows.params import read_params

    scenarios = sorted(read_params(root).scenarios)
    with Progress(transient=True, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("deleting", total=len(plan.objects))
        done = carry_out(places, plan, older_than=age, scenarios=scenarios, advance=lambda _: progress.advance(task))
    freed = sum(one.bytes for one in done.gone)
    if not quiet:
        for one in done.kept:
            console.say(f"kept: {one.place} {one.name}: it is needed by now, or is newer than it was", style="yellow")
        console.say(f"{counted(len(done.gone), 'object')} deleted, {size(freed)}", style="bold green")
        if done.receipt:
            console.say(f"receipt {done.receipt.number}, sha256:{done.receipt.digest}")
    return {
        "plan": plan.id,
        "deleted": [vars(one) for one in done.gone],
        "kept": [vars(one) for one in done.kept],
        "bytes": freed,
        "receipt": done.receipt.number if done.receipt else None,
    }


def _require_ripe(console: Console, plan: Plan, wait: timedelta, *, quiet: bool) -> None:
    left = plan.ripe(wait) - datetime.now(UTC)
    if left > timedelta():
        raise RecstillError(
            f"plan {plan.id[:_SHOWN]} is too young: it can be carried out from {plan.ripe(wait):%Y-%m-%d %H:%M} UTC on",
            "The day in between is for whoever misses something. --now does not wait.",
        )
    if not wait and not quiet:
        console.say("not waited: nobody had the time to object", style="yellow")


def _told(console: Console, found: list[Unneeded]) -> None:
    from flows.cache_tables import size

    for one in found[:_LISTED]:
        console.say(f"  {one.place} {one.name}  {size(one.bytes)}  {one.why}")
    if len(found) > _LISTED:
        console.say(f"  and {len(found) - _LISTED} more; --json lists all")
    counts, sizes = Counter(one.place for one in found), Counter[str]()
    for one in found:
        sizes[one.place] += one.bytes
    parts = [f"{counts[place]} {title} ({size(sizes[place])})" for place, title in _TITLES.items() if counts[place]]
    console.say(f"nobody needs: {', '.join(parts)}" if parts else "everything is needed, or too young", style="bold")


def _age(text: str, option: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text.strip())
    if found is None or (not found[2] and float(found[1]) != 0):
        raise SettingsError(f"{option} {text!r} is no age", "Write a number and a unit: 90m, 24h, 7d.")
    return timedelta(seconds=float(found[1]) * _UNITS.get(found[2], 0))
