"""A flow in one process: started quietly, ended at once by Ctrl-C, and its failure one clear error."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import RecstillError
from flows.interruption import prompt_end

if TYPE_CHECKING:
    from flows.graph import Stage, StageResult


def prefer_quiet_prefect() -> None:
    """Defaults for a run on one machine, before Prefect reads its settings; the environment overrules them."""
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")  # its own server's complaints at its end
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")  # the same for Prefect's client
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")


def run_stages(root: Path, scenario: str, stages: Sequence[Stage], force: bool) -> dict[str, StageResult]:
    """Bring stages of a scenario up to date, each as soon as those that it reads from are done.

    Args:
        root: The checkout, which has to be the current folder.
        scenario: A scenario of params.yaml.
        stages: Which.
        force: Run them even when nothing has changed.

    Returns:
        How each ended, by address.

    Raises:
        RecstillError: A stage failed.
    """
    prefer_quiet_prefect()
    from flows.compress import compress

    addresses = [stage.address for stage in stages]
    results = run_flow(lambda: compress(str(root), scenario, addresses, force, return_state=True), scenario)
    return {result.address: result for result in results}


def run_flow(flow: Callable[[], Any], scenario: str, *, first: Callable[[], None] | None = None) -> Any:
    """What a flow returns.

    Args:
        flow: Runs it and gives its final state.
        scenario: For the message.
        first: What a Ctrl-C does before it ends the process.

    Raises:
        RecstillError: It did not complete.
    """
    # In a thread of its own: in the main one, Prefect would take the signals for itself.
    with prompt_end(first), ThreadPoolExecutor(1) as thread:
        state = thread.submit(flow).result()
    if not state.is_completed():
        raise RecstillError(
            state.message or "the run did not complete", f"`recstill status {scenario}` shows what is left."
        )
    return state.result()
