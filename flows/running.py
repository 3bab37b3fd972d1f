"""A flow in one process: started quietly, ended at once by Ctrl-C, and its failure one clear error."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from components.errors import RecstillError
from flows.events import SERVER_VARIABLE, ServerError
from flows.interruption import prompt_end
from flows.repository import without_credentials

if TYPE_CHECKING:
    from flows.graph import Stage, StageResult


_START_VARIABLE = "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"


def prefer_quiet_prefect() -> None:
    """Defaults for a run on one machine, before Prefect reads its settings; the environment overrules them.

    Raises:
        ServerError: ``PREFECT_API_URL`` is no address: Prefect could not even be imported.
    """
    address = os.environ.get(SERVER_VARIABLE)
    try:
        known = not address or urlsplit(address).scheme in ("http", "https")
    except ValueError:  # half an IPv6 address, for example
        known = False
    if not known:
        raise ServerError(
            f"{SERVER_VARIABLE} is no address of a Prefect server: {without_credentials(address or '')!r}",
            "Write it as http://127.0.0.1:4200/api, or unset it to do without one.",
        )
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_INTERNAL_LOGGING_LEVEL", "CRITICAL")  # each event that a lost server misses
    os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "CRITICAL")  # its own server's complaints at its end
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")  # the same for Prefect's client
    os.environ.setdefault(_START_VARIABLE, "120")


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
        ServerError: The Prefect server that is named does not answer.
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
        ServerError: The Prefect server that is named does not answer, or refuses.
        RecstillError: It did not complete.
    """
    # In a thread of its own: in the main one, Prefect would take the signals for itself.
    with prompt_end(first), server_errors(), ThreadPoolExecutor(1) as thread:
        state = thread.submit(flow).result()
    if not state.is_completed():
        raise RecstillError(
            state.message or "the run did not complete", f"`recstill status {scenario}` shows what is left."
        )
    return state.result()


@contextmanager
def server_errors() -> Iterator[None]:
    """Within the block, whatever Prefect raises because its server does not answer is one clear error.

    Raises:
        ServerError: It does not answer, or refuses.
    """
    import httpx
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, PrefectHTTPStatusError, RuntimeError) as error:
        # Prefect's own word for it, and of no class of its own.
        if isinstance(error, RuntimeError) and "ephemeral" in str(error):
            raise ServerError(
                f"Prefect's own server has not started within {os.environ.get(_START_VARIABLE, '20')} s: "
                f"{' '.join(str(error).split())[:300]}",
                f"On a busy machine run again later, or give it longer with {_START_VARIABLE}: what is done is not "
                "done twice.",
            ) from None
        if isinstance(error, RuntimeError) and "Failed to reach API" not in str(error):
            raise
        reason = error.__cause__ or error  # that a connection was refused, say
        raise ServerError(
            f"the Prefect server{_place()} does not answer: {' '.join(str(reason).split())[:300]}",
            f"Start it, or correct {SERVER_VARIABLE}, or unset it to do without one; then run again: what is done is "
            "not done twice.",
        ) from None


def _place() -> str:
    address = os.environ.get(SERVER_VARIABLE)
    return f" at {without_credentials(address)}" if address else ""
