"""``recstill schedule``: what the Prefect server starts by itself, and when."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from components.errors import SettingsError
from flows.work_pools import POOL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flows.deployments import Registration

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SHORTEST = timedelta(minutes=1)
_LONGEST = timedelta(weeks=520)


def register(app: typer.Typer) -> None:
    """Add the command to the main app."""
    app.command()(schedule)


def schedule(
    scenarios: Annotated[list[str] | None, typer.Argument(help="Scenarios of params.yaml.", show_default=False)] = None,
    *,
    cron: Annotated[str | None, typer.Option("--cron", help='When to retrain, in UTC, e.g. "0 3 * * *".')] = None,
    every: Annotated[
        str | None, typer.Option("--every", metavar="AGE", help="How often to retrain: 30m, 6h, 1d.")
    ] = None,
    pool: Annotated[str, typer.Option("--pool", help="The work pool; it is made when it is missing.")] = POOL,
    pool_type: Annotated[
        str, typer.Option("--pool-type", help="What a run is: process, docker or kubernetes.")
    ] = "process",
    image: Annotated[str | None, typer.Option("--image", help="For containers: NAME:VERSION.")] = None,
    approve: Annotated[
        bool, typer.Option("--approve", help="A deployment waits for a person to approve it on Prefect's page.")
    ] = False,
    audit_cron: Annotated[str, typer.Option("--audit-cron", help="When to audit, in UTC.")] = "30 2 * * *",
    show: Annotated[bool, typer.Option("--list", help="Show what is registered.")] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take it off the server; without a scenario, everything.")
    ] = False,
) -> None:
    """Register retraining by the clock, deployment of what has been registered, and a nightly audit.

    They live on the Prefect server of PREFECT_API_URL and are carried out by a worker of the pool:
    `prefect worker start --pool recstill`. Without --cron and --every retraining is started by hand. Run it again to
    change something.
    """
    from flows.running import prefer_quiet_prefect

    prefer_quiet_prefect()  # before Prefect is imported, and here alone: `recstill up` hands its variables down
    from flows import deployments
    from flows.console import Console
    from flows.params import read_params
    from flows.repository import enter_checkout
    from flows.work_pools import pool_type as checked_type

    console = Console()
    if show and remove:
        raise SettingsError("--list and --remove exclude each other", "Give one of them.")
    if show:
        _show(deployments.listed())
        return
    if remove:
        gone = deployments.remove(scenarios or [])
        for name in gone:
            console.say(f"{name}: removed")
        for scenario in scenarios or []:
            if not any(name.partition("/")[2] == scenario for name in gone):
                console.say(f"nothing is registered of {scenario}: --list shows what is", style="yellow")
        return
    if not scenarios:
        raise SettingsError("no scenario is named", "Name one or more of params.yaml: recstill schedule movielens")
    if cron and every:
        raise SettingsError("--cron and --every exclude each other", "Give one of them.")
    root = enter_checkout()
    params = read_params(root)
    for scenario in scenarios:
        params.scenario(scenario)
    plan = deployments.Plan(
        scenarios=scenarios,
        cron=checked_cron("--cron", cron) if cron else None,
        every=_interval(every) if every else None,
        audit_cron=checked_cron("--audit-cron", audit_cron),
        pool=pool,
        pool_type=checked_type(pool_type),
        image=image,
        approve=approve,
    )
    _show(deployments.register(root, plan))
    console.say(f"carried out by: prefect worker start --pool {pool}")


def checked_cron(option: str, text: str) -> str:
    """``text`` itself, when it is a cron expression.

    Raises:
        SettingsError: It is none.
    """
    from prefect.client.schemas.schedules import CronSchedule
    from pydantic import ValidationError

    try:
        CronSchedule(cron=text)
    except ValidationError:
        raise SettingsError(
            f"{option} {text!r} is no cron expression",
            'Write minute, hour, day, month, weekday: "0 3 * * *" is every day at three.',
        ) from None
    return text


def _interval(text: str) -> timedelta:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([mhdw])", text.strip())
    try:
        interval = timedelta(**{_UNITS[found[2]]: float(found[1])}) if found else timedelta(0)
    except OverflowError:
        interval = timedelta.max
    if not _SHORTEST <= interval <= _LONGEST:
        raise SettingsError(
            f"--every {text!r} is no interval from a minute to {_LONGEST.days // 7} weeks", "Write 30m, 6h, 1d."
        )
    return interval


def _show(registrations: Sequence[Registration]) -> None:
    from rich.table import Table

    from flows.console import Console

    console = Console()
    if not registrations:
        console.say("nothing is registered: recstill schedule SCENARIO")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("deployment", "when", "next, UTC", "pool"):
        table.add_column(title, overflow="fold")
    for one in registrations:
        following = f"{one.following:%Y-%m-%d %H:%M}" if one.following else ""
        table.add_row(one.name, one.when, following, one.pool)
    console.table(table)
