"""``recstill retrain``: new data, the graph, the gate, and a new version if it passes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.errors import RecstillError

if TYPE_CHECKING:
    from flows.graph import Stage
    from flows.retrain import Outcome

REFUSED = 3
"""Exit status when the gate has refused the challenger; 0: registered, or nothing new; 1: an error."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(retrain)


def retrain(
    scenario: Annotated[str, typer.Argument(help="A scenario of params.yaml.")],
    as_of: Annotated[
        str | None,
        typer.Option(
            "--as-of",
            metavar="DATE",
            help="Leave out later events: 2026-03-01, or with a time, UTC. Default: the last midnight where "
            "params.yaml names a date, else all events.",
        ),
    ] = None,
    warm: Annotated[
        bool | None,
        typer.Option(
            "--warm/--cold", help="Start the teacher from the live version's, or anew. Default: as params.yaml says."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Go on although nothing has moved, or the gate has refused the same before.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print how it ended as JSON, and nothing else.")] = False,
) -> None:
    """Train a challenger on new data, in a worktree of a clean commit; register it if the gate lets it through.

    What is live stays as it is: `recstill deploy` changes that. Exit status 0: registered, or nothing new; 3: refused
    by the gate; 1: an error.
    """
    from flows.console import Console
    from flows.repository import enter_checkout
    from flows.running import prefer_quiet_prefect

    prefer_quiet_prefect()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    outcome = _outcome(enter_checkout(), scenario, as_of, warm=warm, force=force, quiet=as_json)
    console = Console()
    if as_json:
        console.document(asdict(outcome))
    else:
        styles = {"registered": "bold green", "nothing new": "cyan", "refused": "bold yellow"}
        console.say(outcome.message, style=styles[outcome.ended])
    if outcome.ended == "refused":
        raise typer.Exit(REFUSED)


def _outcome(
    checkout: Path, scenario: str, as_of: str | None, *, warm: bool | None, force: bool, quiet: bool
) -> Outcome:
    from flows.console import Console
    from flows.only_document import output_to_errors
    from flows.repository import store_of
    from flows.retrain import known_outcome
    from flows.retrain import retrain as flow
    from flows.running import run_flow
    from flows.runs import unfinished_runs
    from flows.surveying import Request, survey
    from flows.trust import trusted
    from flows.worktrees import scenario_lock

    with output_to_errors(quiet):
        # Starting Prefect takes longer than finding out that there is nothing to do.
        request = Request(scenario, as_of, warm, force)
        with scenario_lock(checkout, scenario, handed_on=True):
            # What an earlier one left has to be finished whatever the data are.
            if not unfinished_runs(store_of(checkout), scenario, trusted(checkout)):
                known = known_outcome(survey(checkout, request, _one_by_one, Console().say), request)
                if known is not None:
                    return known
            outcome: Outcome = run_flow(lambda: flow(scenario, as_of, warm, force, return_state=True), scenario)
        return outcome


def _one_by_one(tree: Path, _scenario: str, stages: Sequence[Stage]) -> None:
    from flows.console import Console
    from flows.graph import StageResult, reproduce

    console = Console()
    for stage in stages:
        console.begins(stage.address, stage.description)
        started = time.time()
        try:
            done, own_seconds = reproduce(tree, stage.address)
        except RecstillError:
            console.fails(stage.address)
            raise
        console.ends(StageResult(stage.address, done, started, time.time() - started, own_seconds))
