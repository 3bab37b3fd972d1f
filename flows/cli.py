"""The command ``recstill``. Heavy libraries are imported by the command that needs them: help answers at once."""

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
from flows import (
    audit_cli,
    batch_cli,
    deploy_cli,
    diff_cli,
    erase_cli,
    evidence_cli,
    gc_cli,
    history_cli,
    impact_cli,
    recall_cli,
    reproduce_cli,
    retrain_cli,
    schedule_cli,
    serving_cli,
    soft_labels_cli,
    stack_cli,
    store_cli,
    trace_cli,
    tune_cli,
    verify_cli,
)

if TYPE_CHECKING:
    from flows.graph import Stage, StageResult

DEFAULT_SCENARIO = "movielens"

app = typer.Typer(
    help="Distil, prune and quantize a large recommender into a small one that can be trusted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(soft_labels_cli.app, name="soft-labels")
app.add_typer(store_cli.app, name="store")

ScenarioArgument = Annotated[
    str, typer.Argument(help="A scenario of params.yaml, or a pair of them.", show_default=True)
]


@app.command()
def run(
    scenario: ScenarioArgument = DEFAULT_SCENARIO,
    force: Annotated[bool, typer.Option("--force", help="Run stages even when nothing has changed.")] = False,
    first: Annotated[
        str | None, typer.Option("--from", metavar="STAGE", help="Leave what comes before this stage as it is.")
    ] = None,
    last: Annotated[
        list[str] | None,
        typer.Option(
            "--to", metavar="STAGE", help="Leave out what leads to no such stage; may be given several times."
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change params.yaml first, e.g. scenarios.movielens.seed=1."),
    ] = None,
) -> None:
    """Run the stages of a scenario that are not up to date: from raw events to a package and a report."""
    from flows.attesting import attest_run
    from flows.console import Console
    from flows.graph import pending, scenario_stages
    from flows.params import assign, check_gate, read_params

    started = time.monotonic()
    console, root = Console(), _checkout()
    if assignments:
        _require_server()  # else params.yaml would be changed for a run that cannot begin
    for change in assign(root, assignments or []):
        console.say(f"params.yaml: {change}")
    scenarios = read_params(root).scenarios
    stages = scenario_stages(root, scenario)
    chosen = _stages_from(stages, first) if first else stages
    if last:
        chosen = _stages_to(stages, last, chosen)
    # Asking DVC takes a second, starting Prefect ten times that: an unchanged scenario need not wait for it.
    if not force and not pending(root, chosen):
        which = f"every stage up to {' and '.join(last)}" if last else "every stage"
        console.say(f"{scenario}: {which} is up to date ({len(chosen)} cached)", style="cyan")
        for name in dict.fromkeys(stage.scenario for stage in stages):
            attest_run(root, name, (), console.say)  # what plain `dvc repro` has made, nobody has attested yet
    else:
        for name in {stage.scenario for stage in stages} & {*scenarios}:  # a pair has none of its own
            check_gate(scenarios[name])
        results = _compressed(root, scenario, stages, chosen, force)
        console.summary(results, time.monotonic() - started)
    if stages[-1] in chosen:
        console.results(root / "artifacts" / scenario / "report")
    else:
        console.say(f"the rest is left as it is: `recstill run {scenario}` goes on")


@app.command()
def status(scenario: ScenarioArgument = DEFAULT_SCENARIO) -> None:
    """Which stages of a scenario are up to date, and why the others are not."""
    from flows.console import Console
    from flows.graph import pending, scenario_stages
    from flows.params import read_params

    root = _checkout()
    read_params(root)
    stages = scenario_stages(root, scenario)
    Console().state(stages, pending(root, stages))


@app.command()
def params(
    scenario: Annotated[str | None, typer.Argument(help="Show the values of this scenario.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON schema, or a scenario's values.")] = False,
) -> None:
    """Every parameter with its type, default and meaning; with a scenario, the values that it has there."""
    from flows.console import Console
    from flows.params import described, read_params, schema

    console = Console()
    if scenario is None:
        console.document(schema()) if as_json else console.parameters(described(None, None))
        return
    loaded = read_params(_checkout())
    parameters = described(loaded, scenario)
    if as_json:
        console.document(loaded.scenarios[scenario].model_dump(mode="json"))
    else:
        console.parameters(parameters)


@app.command()
def predict(
    package: Annotated[Path, typer.Argument(help="A package folder, e.g. artifacts/movielens/package.")],
    history: Annotated[str, typer.Option("--history", help="Item ids, oldest first, separated by commas.")] = "",
    k: Annotated[int, typer.Option("-k", min=1, help="How many items to recommend.")] = 10,
    request: Annotated[
        str, typer.Option("--request", help="A request as the service takes it, JSON or the name of a file with it.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask a package alone: items for a history, or whatever its task answers (--request)."""
    from components.serving.opening import open_package
    from components.serving.single_request import request_of
    from flows.console import Console

    predictor = open_package(package)
    if request:
        answer = predictor.answer_all([request_of(predictor, request)])[0]
    else:
        answer = predictor.recommend([part.strip() for part in history.split(",") if part.strip()], k=k)
    Console().answer(predictor.answering, answer, as_json=as_json)


for commands in (
    batch_cli,
    retrain_cli,
    deploy_cli,
    serving_cli,
    tune_cli,
    schedule_cli,
    audit_cli,
    stack_cli,
    reproduce_cli,
    trace_cli,
    impact_cli,
    erase_cli,
    history_cli,
    gc_cli,
    diff_cli,
    verify_cli,
    recall_cli,
    evidence_cli,
):
    commands.register(app)


def _compressed(
    root: Path, scenario: str, stages: Sequence[Stage], chosen: Sequence[Stage], force: bool
) -> list[StageResult]:
    """Run the flow; stages that it was not asked for or did not reach count as skipped."""
    from components.storage.atomic import write_json
    from flows.graph import StageResult
    from flows.running import run_stages

    started = time.time()
    ended = run_stages(root, scenario, chosen, force)
    results = [ended.get(stage.address, StageResult(stage.address, "skipped")) for stage in stages]
    # What each stage cost, and what was spent around them: for whoever wants to know where the time went.
    record = {"started": started, "ended": time.time(), "stages": [asdict(result) for result in results]}
    write_json(root / ".recstill" / "runs" / f"{scenario}.json", record)
    return results


def _require_server() -> None:
    """Refuse to go on when a Prefect server is named and does not answer."""
    from flows.events import SERVER_VARIABLE

    if os.environ.get(SERVER_VARIABLE):
        from flows.prefect_server import server_client

        with server_client():
            pass


def _checkout() -> Path:
    """The root of the checkout, as the current folder: stages are run from there."""
    from flows.repository import enter_checkout

    # `python` in dvc.yaml shall be the interpreter that runs this command, activated or not.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ.setdefault("DVC_NO_ANALYTICS", "1")
    return enter_checkout()


def _stages_from(stages: Sequence[Stage], first: str) -> list[Stage]:
    """The stage named ``first`` and everything that depends on it.

    Raises:
        RecstillError: There is no such stage.
    """
    _check_stage(stages, first)
    chosen: list[Stage] = []
    for stage in stages:
        if stage.name == first or any(before.address in stage.upstream for before in chosen):
            chosen.append(stage)
    return chosen


def _stages_to(stages: Sequence[Stage], last: Sequence[str], among: Sequence[Stage]) -> list[Stage]:
    """Of ``among``, the stages named in ``last`` and everything that they depend on.

    Raises:
        RecstillError: There is no such stage, or it is none of them.
    """
    for name in last:
        _check_stage(stages, name)
    wanted: set[str] = set()
    for stage in reversed(stages):
        if stage.name in last or stage.address in wanted:
            wanted |= {stage.address, *stage.upstream}
    chosen = [stage for stage in among if stage.address in wanted]
    if not chosen:
        raise RecstillError(f"no stage leads from --from to --to {last[0]}", "Name an earlier one after --from.")
    return chosen


def _check_stage(stages: Sequence[Stage], name: str) -> None:
    from components.settings.base import nearest

    names = [stage.name for stage in stages]
    if name not in names:
        raise RecstillError(f"unknown stage {name!r}; {nearest(name, names)}")


def main() -> None:
    """Entry point: a user's error is one message and exit status 1, Ctrl-C is exit status 130."""
    try:
        app()
    except RecstillError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; nothing half-written is left, run the same command again to go on", err=True)
        sys.exit(130)
