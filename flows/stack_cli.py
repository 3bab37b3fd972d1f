"""``recstill up``: the whole stack on this machine, for a first look."""

from __future__ import annotations

from typing import Annotated

import typer

_PORTS = {"min": 1, "max": 65_535}


def register(app: typer.Typer) -> None:
    """Add the command to the main app."""
    app.command()(up)


def up(
    name: Annotated[str, typer.Argument(help="The scenario that is retrained and served.")] = "movielens",
    *,
    port: Annotated[int, typer.Option("--port", help="Of the service.", **_PORTS)] = 8000,
    prefect_port: Annotated[int, typer.Option("--prefect-port", help="Of the Prefect server.", **_PORTS)] = 4200,
    store_port: Annotated[int, typer.Option("--store-port", help="Of the object store.", min=1, max=55_535)] = 8333,
    cron: Annotated[str, typer.Option("--cron", help="When to retrain, in UTC.")] = "0 3 * * *",
    postgres: Annotated[
        str | None,
        typer.Option(
            "--postgres",
            metavar="ADDRESS",
            envvar="RECSTILL_POSTGRES",
            help="Keep the Prefect server's records there: postgresql://user:password@host/database. Without: SQLite.",
        ),
    ] = None,
) -> None:
    """Start the whole stack on this machine, without containers: Prefect server, worker, object store, service.

    Without RECSTILL_STORE it starts SeaweedFS where that is installed (`make test` does), else it uses the folder store
    of the checkout. It stays in the foreground; Ctrl-C ends everything.
    """
    from flows.console import Console
    from flows.params import read_params
    from flows.repository import enter_checkout
    from flows.schedule_cli import checked_cron
    from flows.stack import run
    from flows.stack_environment import Stack

    root = enter_checkout()
    read_params(root).scenario(name)
    checked_cron("--cron", cron)
    raise typer.Exit(run(Stack(root, name, port, prefect_port, store_port, cron, postgres), Console().say))
