"""The main job: one scenario, from raw events to a package, stage by stage."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner

from components.errors import RecstillError
from flows.artifacts import publish_results
from flows.attesting import attest_run
from flows.console import Console
from flows.graph import Stage, StageResult, reproduce, scenario_stages
from flows.run_names import dated
from flows.slots import stage_slots


@task(task_run_name="{address}", cache_policy=NO_CACHE, persist_result=False)
def bring_up_to_date(root: str, address: str, description: str, force: bool, beside_others: bool) -> StageResult:
    """Bring one stage up to date through DVC, which decides whether it has to run.

    With a Prefect server it waits for its slots: one stage never twice at once, one stage at a time on the GPU.
    A stage's error ends as a failed state with its message: what a user can mend needs no traceback.
    """
    console = Console()
    try:
        with stage_slots(Path(root), address):
            console.begins(address, description)
            started = time.time()
            outcome, own_seconds = reproduce(Path(root), address, force=force, plain_progress=beside_others)
    except RecstillError as error:
        console.fails(address)
        return Failed(message=str(error))  # type: ignore[return-value]  # Prefect takes a state for a result
    result = StageResult(address, outcome, started, time.time() - started, own_seconds)
    console.ends(result)
    return result


_AT_ONCE: ThreadPoolTaskRunner[Any] = ThreadPoolTaskRunner(max_workers=os.cpu_count())


@flow(flow_run_name=dated("scenario"), task_runner=_AT_ONCE, persist_result=False)  # type: ignore[arg-type]
def compress(root: str, scenario: str, addresses: list[str], force: bool = False) -> list[StageResult]:
    """Run stages of one scenario, and of those it reads from, each as soon as the stages that it reads from are done.

    Args:
        root: The checkout.
        scenario: A scenario of params.yaml.
        addresses: The stages to run; the others are left as they are.
        force: Run them even when nothing has changed.
    """
    known = scenario_stages(Path(root), scenario)
    stages = [stage for stage in known if stage.address in addresses]
    side_by_side = _side_by_side(stages)
    futures: dict[str, PrefectFuture[Any]] = {}
    for stage in stages:
        futures[stage.address] = bring_up_to_date.with_options(name=stage.name).submit(
            root,
            stage.address,
            stage.description,
            force,
            stage.address in side_by_side,
            return_state=False,
            wait_for=[futures[address] for address in stage.upstream if address in futures],
        )
    for future in futures.values():
        future.wait()
    states = {address: future.state for address, future in futures.items()}
    failed = [address for address, state in states.items() if state.is_failed()]
    done = [state.result() for state in states.values() if state.is_completed()]  # others may never have begun
    for name in dict.fromkeys(stage.scenario for stage in stages):
        own = [result for result in done if result.address.partition("@")[2] == name]
        attest_run(Path(root), name, own, Console().say)
    if failed:
        return Failed(message="\n".join(f"{address}: {states[address].message}" for address in failed))  # type: ignore[return-value]
    if known[-1].address in addresses:  # else the report that lies there is of an earlier run
        publish_results(scenario, Path(root) / "artifacts" / scenario / "report")
    return done


def _side_by_side(stages: Sequence[Stage]) -> set[str]:
    """Addresses of the stages that may run at the same time as another one: neither waits for the other."""
    before: dict[str, set[str]] = {}
    for stage in stages:
        known = [address for address in stage.upstream if address in before]
        before[stage.address] = set(known).union(*(before[address] for address in known))
    return {
        one
        for one in before
        for other in before
        if one != other and one not in before[other] and other not in before[one]
    }
