"""The parts of a soft-label cache, one Prefect task each, on Dask workers that all write to the same store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask
import distributed
import psutil
from distributed.deploy.local import LocalCluster
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Failed
from prefect_dask import DaskTaskRunner

from components.errors import RecstillError

_TOPIC = "recstill-rows"
_SECONDS_BETWEEN_EVENTS = 0.5
_CONNECT_SECONDS = 5
_WORKER_SECONDS = 30
_CLOSE_SECONDS = 5
# Tasks that the scheduler holds at once; a large cache has more parts than it should have to know.
_AT_ONCE = 256
# No services that nobody asked for. And one thread a worker, but not Dask's order to malloc that it give back every
# piece of memory at once: the logits of each chunk would be mapped anew.
_DASK_SETTINGS = {
    "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": 1, "MKL_NUM_THREADS": 1},
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.comm.timeouts.connect": f"{_CONNECT_SECONDS}s",
}


@dataclass(frozen=True)
class Workers:
    """Dask workers that can be reached.

    Attributes:
        client: Connected to their scheduler.
        elsewhere: Whether they may be on other machines.
        cluster: Theirs, when it was started for this run.
        folder: Its temporary folder.
    """

    client: distributed.Client
    elsewhere: bool
    cluster: LocalCluster | None = None
    folder: str = ""

    def end(self) -> None:
        """End local processes at once. A cluster of somebody else's drops the work when its client is gone."""
        if self.cluster is None:
            return
        for nanny in list(self.cluster.workers.values()):
            nanny.auto_restart = False
        _kill_children("multiprocessing.spawn")
        with contextlib.suppress(Exception):
            self.cluster.close(timeout=_CLOSE_SECONDS)
        # It would live as long as this process, which waits for its children.
        _kill_children("multiprocessing.resource_tracker")
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def local_workers(number: int) -> Iterator[Workers]:
    """Processes on this machine with one thread each, reached over loopback and TLS with a key of their own."""
    _quieten()
    with (
        tempfile.TemporaryDirectory(prefix="recstill-dask-") as folder,
        dask.config.set(_DASK_SETTINGS),
        LocalCluster(
            n_workers=number,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            protocol="tls://",
            security=True,
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            memory_limit=None,
            local_directory=folder,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield Workers(client, elsewhere=False, cluster=cluster, folder=folder)


@contextmanager
def workers_at(address: str) -> Iterator[Workers]:
    """The workers of a scheduler that runs already.

    Raises:
        RecstillError: There is no scheduler at this address, or it has no workers.
    """
    _quieten()
    with dask.config.set(_DASK_SETTINGS):
        try:
            asyncio.run(_identity(address))
        except Exception as error:  # whatever answers there may answer anything
            raise RecstillError(
                f"no Dask scheduler answers at {address} ({type(error).__name__})",
                "Check the address (tcp://host:8786), and that `dask scheduler` runs there.",
            ) from None
        with distributed.Client(address, set_as_default=False) as client:
            try:
                client.wait_for_workers(1, timeout=_WORKER_SECONDS)
            except TimeoutError:
                raise RecstillError(
                    f"the Dask scheduler at {address} has no workers", f"Start some: `dask worker {address}`."
                ) from None
            yield Workers(client, elsewhere=True)


@task(task_run_name="part {number}", cache_policy=NO_CACHE, persist_result=False)
def label_part(ticket: list[str], number: int) -> int:
    """What a worker does: see that one part is in the store; the rows it has.

    An error that is explained ends as a failed state with its message.
    """
    from components.soft_labels.job import Ticket, finish_part_of_job

    teller = _Teller(ticket, number)
    teller.tell()
    try:
        part = finish_part_of_job(Ticket(*ticket), number, teller.advance)
    except RecstillError as error:
        return Failed(message=str(error))  # type: ignore[return-value]  # Prefect takes a state for a result
    teller.tell()
    return part.rows


@flow(flow_run_name="label {scenario}", persist_result=False)
def label(scenario: str, ticket: list[str], parts: int) -> int:
    """Finish all parts of a job on the workers of this flow's task runner; the number of rows.

    The first part that fails ends the flow; parts that other workers are at are cancelled.

    Args:
        scenario: For the name of the run.
        ticket: Where the job is, see :class:`~components.soft_labels.job.Ticket`.
        parts: How many there are.
    """
    waiting = iter(range(parts))
    running: dict[Any, int] = {}
    context: Any = FlowRunContext.get()
    ended = distributed.as_completed(loop=context.task_runner.client.loop)

    def submit_next() -> None:
        if (number := next(waiting, None)) is not None:
            future: Any = label_part.submit(ticket, number, return_state=False)
            running[future.wrapped_future] = number
            ended.add(future.wrapped_future)

    for _ in range(min(parts, _AT_ONCE)):
        submit_next()
    rows = 0
    for future in ended:
        number = running.pop(future)
        problem = _problem(future, number)
        if problem is not None:
            for other in running:
                other.cancel(force=True)
            return Failed(message=problem)  # type: ignore[return-value]
        rows += int(future.result().result())
        future.release()
        submit_next()
    return rows


def score(scenario: str, ticket: list[str], parts: int, workers: Workers) -> Any:
    """Run the flow ``label`` on these workers; its final state."""
    client = workers.client
    runner: Any = DaskTaskRunner(
        address=client.scheduler_info(n_workers=0)["address"],
        client_kwargs={"security": client.security} if workers.cluster else None,
    )
    # Workers would start an API of their own if they were not told of the one that this process uses.
    with get_client(sync_client=True) as prefect:
        api = str(prefect.api_url)
    with temporary_settings({PREFECT_API_URL: api}):
        return label.with_options(task_runner=runner)(scenario, ticket, parts, return_state=True)


@contextmanager
def told_to(advance: Callable[[int, bool], None], workers: Workers, ticket: Sequence[str]) -> Iterator[None]:
    """Within the block ``advance`` hears of rows that workers have done, as each of them tells now and then.

    A part that is begun again, since its worker died, is counted once.
    """
    done: dict[int, int] = {}

    def hear(event: tuple[float, dict[str, Any]]) -> None:
        told = event[1]
        new = told["rows"] - done.get(told["part"], 0)
        if new >= 0:
            done[told["part"]] = told["rows"]
            advance(new, told["reused"])

    workers.client.subscribe_topic(_topic(ticket), hear)
    try:
        yield
    finally:
        workers.client.unsubscribe_topic(_topic(ticket))


def _topic(ticket: Sequence[str]) -> str:
    """One of its own for each job: several may run on a cluster."""
    return f"{_TOPIC}-{ticket[1]}"


class _Teller:
    """Tells the scheduler, and through it whoever wants to know, how many rows of a part are done."""

    def __init__(self, ticket: Sequence[str], number: int) -> None:
        self._topic = _topic(ticket)
        self._number, self._rows, self._reused = number, 0, False
        self._last = time.monotonic()

    def advance(self, rows: int, reused: bool) -> None:
        self._rows += rows
        self._reused = reused
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_EVENTS:
            self.tell()

    def tell(self) -> None:
        self._last = time.monotonic()
        event = {"part": self._number, "rows": self._rows, "reused": self._reused}
        distributed.get_worker().log_event(self._topic, event)


def _problem(future: distributed.Future, number: int) -> str | None:
    """What went wrong with a part, in words; None when it is finished."""
    try:
        state = future.result()
    except distributed.KilledWorker as error:
        return f"part {number}: {error.allowed_failures + 1} Dask workers died one after the other while they scored it"
    except Exception as error:  # the scheduler is gone, or the worker could not even begin
        if "Failed to reach API" in str(error):
            return (
                f"part {number}: a Dask worker does not reach Prefect's API\n  Set PREFECT_API_URL, here, to a server "
                "that every worker reaches: `prefect server start --host 0.0.0.0`."
            )
        return f"part {number}: Dask could not finish it ({type(error).__name__})"
    if state.is_completed():
        return None
    return state.message or f"part {number}: {state.name}"


async def _identity(address: str) -> Any:
    security = distributed.Security()

    async def ask() -> Any:
        async with distributed.rpc(address, connection_args=security.get_connection_args("client")) as scheduler:
            return await scheduler.identity(n_workers=0)

    return await asyncio.wait_for(ask(), _CONNECT_SECONDS)


def _kill_children(module: str) -> None:
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if module in " ".join(child.cmdline()):
                child.kill()


def _quieten() -> None:
    for name in ("distributed", "distributed.client", "asyncio", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
