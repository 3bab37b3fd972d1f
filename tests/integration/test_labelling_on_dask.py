"""Soft labels scored by real Dask workers, orchestrated by Prefect, into real stores."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest
from distributed.deploy.local import LocalCluster

from components.errors import RecstillError
from components.soft_labels.inputs import read_inputs
from components.soft_labels.job import PostedJob, Ticket, finish_part_of_job
from components.soft_labels.manifest import Manifest
from components.soft_labels.writer import write_cache
from components.stages.labelling_job import post_stage
from components.stages.workspace import Workspace
from components.storage.contract import ObjectStore
from components.storage.folder_store import FolderStore
from components.storage.object_store import open_store
from flows.running import prefer_quiet_prefect
from tests.integration.labelling_checkout import new_checkout

prefer_quiet_prefect()

from prefect.testing.utilities import prefect_test_harness  # noqa: E402

from components.settings.soft_labels import SoftLabelSettings  # noqa: E402
from flows.dask_scoring import Workers, local_workers, score, told_to, workers_at  # noqa: E402


@pytest.fixture(scope="module")
def prefect() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def crew() -> Iterator[Workers]:
    with local_workers(2) as found:
        yield found


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A scheduler that somebody else has started, with one worker, which has an environment of its own."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=logging.CRITICAL
    ) as cluster:
        yield str(cluster.scheduler_address)


@pytest.fixture
def workspace(prepared_folder: Path, tmp_path: Path) -> Workspace:
    return new_checkout(tmp_path / "checkout", prepared_folder)


def parts_of(store: ObjectStore) -> dict[str, bytes]:
    return {entry.key: store.get(entry.key) for entry in store.list("") if "/part-" in entry.key}


def written_here(workspace: Workspace, store: ObjectStore, workers: int) -> Manifest:
    inputs = read_inputs(workspace.artifacts / "dataset", workspace.artifacts / "teacher", "next_item")
    return write_cache(
        store,
        inputs.teacher,
        inputs.task,
        workspace.settings("soft_labels", SoftLabelSettings),
        teacher_digest=inputs.teacher_digest,
        dataset_digest=inputs.dataset_digest,
        show=False,
        workers=workers,
    )


def set_environment(values: dict[str, str]) -> None:
    os.environ.update(values)


def use_store(store: str, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    monkeypatch.setenv("RECSTILL_STORE", store)
    return open_store()


@pytest.mark.usefixtures("prefect")
def test_threads_and_dask_workers_write_the_same_bytes(
    workspace: Workspace, crew: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = use_store(f"file://{tmp_path}/dask", monkeypatch)
    job = post_stage(workspace, elsewhere=False)
    counted: list[int] = []
    with told_to(lambda rows, _: counted.append(rows), crew, job.ticket):
        state = score("tiny", list(job.ticket), job.plan.parts, crew)
        assert state.is_completed() and state.result() == job.plan.rows, state
        deadline = time.monotonic() + 5
        while sum(counted) < job.plan.rows and time.monotonic() < deadline:
            time.sleep(0.01)
    assert sum(counted) == job.plan.rows
    job.remove()
    found = parts_of(store)
    assert len(found) == 2 * job.plan.parts == len(list(store.list("")))
    for workers in (1, 3):
        other = FolderStore(tmp_path / f"threads-{workers}")
        written_here(workspace, other, workers)
        assert parts_of(other) == found
    # What the stage does afterwards: nothing is scored again, and the manifest is the one of any other writer.
    assert written_here(workspace, store, 2) == written_here(workspace, FolderStore(tmp_path / "threads-1"), 1)


@pytest.mark.usefixtures("prefect")
def test_workers_elsewhere_fetch_the_inputs_from_s3_and_write_the_same_bytes(
    workspace: Workspace, s3_environment, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = FolderStore(tmp_path / "here")
    written_here(workspace, here, 1)
    store = use_store(f"s3://{s3_environment.new_bucket()}", monkeypatch)
    job = post_stage(workspace, elsewhere=True)
    sent = [entry.key for entry in store.list("")]
    assert any("weights.safetensors" in key for key in sent) and not any("users" in key for key in sent)
    for folder in ("dataset", "teacher"):
        shutil.move(workspace.artifacts / folder, tmp_path / f"gone-{folder}")
    with workers_at(address) as far:
        far.client.run(set_environment, {name: os.environ[name] for name in os.environ if name.startswith("AWS_")})
        state = score("tiny", list(job.ticket), job.plan.parts, far)
    assert state.is_completed(), state
    job.remove()
    assert parts_of(store) == parts_of(here)
    assert all("/part-" in entry.key for entry in store.list(""))


@pytest.mark.usefixtures("prefect")
def test_a_worker_that_sees_another_store_says_so(
    workspace: Workspace, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_store(f"file://{tmp_path}/here", monkeypatch)
    job = post_stage(workspace, elsewhere=True)
    with workers_at(address) as far:
        far.client.run(set_environment, {"RECSTILL_STORE": f"file://{tmp_path}/there"})
        state = score("tiny", list(job.ticket), job.plan.parts, far)
    assert state.is_failed()
    assert "does not see the store" in state.message and "s3://" in state.message


def test_an_address_without_a_scheduler_is_one_clear_error_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.dask_scoring._CONNECT_SECONDS", 1)
    began = time.monotonic()
    with (
        pytest.raises(RecstillError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1 "),
        workers_at("tcp://127.0.0.1:1"),
    ):
        pass
    assert time.monotonic() - began < 4


class KilledAtWork:
    """Kills the first process of a list as soon as a part is recorded."""

    def __init__(self, store: FolderStore, processes: Callable[[], list[int]]) -> None:
        self._store, self._processes, self.killed = store, processes, False
        self._thread = threading.Thread(target=self._kill, daemon=True)

    def __enter__(self) -> KilledAtWork:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _kill(self) -> None:
        deadline = time.monotonic() + 60
        while not any(key.endswith(".json") for key in parts_of(self._store)) and time.monotonic() < deadline:
            time.sleep(0.002)
        for process in self._processes()[:1]:
            psutil.Process(process).kill()
            self.killed = True


@pytest.fixture
def long_job(prepared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PostedJob:
    workspace = new_checkout(tmp_path / "long", prepared_folder, rows_per_part=30)
    use_store(f"file://{tmp_path}/store", monkeypatch)
    return post_stage(workspace, elsewhere=False)


@pytest.mark.usefixtures("prefect")
def test_what_a_killed_worker_was_at_is_scored_by_another(long_job: PostedJob, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    with local_workers(2) as crew, KilledAtWork(store, lambda: _workers_of(crew)) as kill:
        state = score("tiny", list(long_job.ticket), long_job.plan.parts, crew)
    assert kill.killed
    assert state.is_completed() and state.result() == long_job.plan.rows, state
    assert sum(key.endswith(".json") for key in parts_of(store)) == long_job.plan.parts


def test_the_same_kill_is_the_end_of_a_naive_pool(long_job: PostedJob, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    numbers = range(long_job.plan.parts)
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        KilledAtWork(store, lambda: list(pool._processes)),
        pytest.raises(BrokenProcessPool),
    ):
        list(pool.map(naive, [long_job.ticket] * len(numbers), numbers))
    assert sum(key.endswith(".json") for key in parts_of(store)) < long_job.plan.parts


def naive(ticket: Ticket, number: int) -> int:
    return finish_part_of_job(ticket, number, lambda _rows, _reused: None).rows


def _workers_of(crew: Workers) -> list[int]:
    return list(crew.client.run(os.getpid).values())
