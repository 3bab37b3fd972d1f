"""Writers of a soft-label cache as processes of their own, killed at any moment, under the eyes of a reader.

Processes are forked from one that has torch imported, so that a kill costs tenths of a second.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import mmap
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.errors import IntegrityError, RecstillError
from components.networks.contract import PredictionNetwork
from components.settings.soft_labels import SoftLabelSettings
from components.soft_labels.manifest import Manifest, read_manifest
from components.soft_labels.writer import write_cache
from components.storage.contract import MissingObjectError, ObjectStore
from components.storage.folder_store import FolderStore
from components.storage.s3_store import S3Store
from components.tasks.batch import Batch

OUTCOMES, POINTS, ROWS_PER_PART = 40, 400, 100
SETTINGS = SoftLabelSettings(codec="top_k_tail", k=8, rows_per_part=ROWS_PER_PART)
TEACHER = hashlib.sha256(b"the teacher of these tests").hexdigest()
WAIT_SECONDS = 60.0
_SERIES = itertools.count()

Write = Callable[[ObjectStore, "LoggedTeacher", str], Manifest]
Kill = Callable[[Callable[[], object]], bool]
"""Runs something in a process of its own and kills it; whether it was killed before it had ended."""


class EveryPoint:
    """Point i has the input i, in batches that do not end where parts do."""

    outcomes, points = OUTCOMES, POINTS

    def scoring_batches(self, first: int, stop: int, batch_size: int) -> Iterator[Batch]:
        for start in range(first, stop, 32):
            points = torch.arange(start, min(start + 32, stop))
            yield Batch(inputs=(points,), targets=points % OUTCOMES, points=points, step_points=len(points))


class LoggedTeacher(PredictionNetwork):
    """Logits from a table, one row a point; what it is asked stands in a file, which outlives its process.

    Args:
        log: That file.
        noise: Moves every logit by a little, as another machine would.
    """

    def __init__(self, log: Path, noise: int = 0) -> None:
        super().__init__()
        self.table = 3 * torch.randn(POINTS, OUTCOMES, generator=torch.Generator().manual_seed(0))
        if noise:
            self.table += 0.01 * torch.randn(POINTS, OUTCOMES, generator=torch.Generator().manual_seed(noise))
        self._log = log

    def record(self) -> dict[str, Any]:
        return {}

    def encode(self, *inputs: Any, **named: Any) -> torch.Tensor:
        points = inputs[0]
        with self._log.open("ab") as stream:
            stream.write(points.numpy().astype("<i8").tobytes())
        return self.table[points]

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    @property
    def outcomes(self) -> int:
        return OUTCOMES

    def asked(self) -> list[int]:
        return np.frombuffer(self._log.read_bytes(), "<i8").tolist() if self._log.is_file() else []

    def forget(self) -> None:
        self._log.unlink(missing_ok=True)


def write(store: ObjectStore, teacher: LoggedTeacher, dataset: str) -> Manifest:
    """The real writer."""
    return write_cache(
        store, teacher, EveryPoint(), SETTINGS, teacher_digest=TEACHER, dataset_digest=dataset, show=False
    )


def write_singly(store: ObjectStore, teacher: LoggedTeacher, dataset: str) -> Manifest:
    """The real writer, one part after the other: each time the same steps."""
    digests = {"teacher_digest": TEACHER, "dataset_digest": dataset}
    return write_cache(store, teacher, EveryPoint(), SETTINGS, show=False, workers=1, **digests)


def dataset_of(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


@functools.cache
def undisturbed(dataset: str) -> tuple[str, bytes]:
    """Key and content of the manifest that a writer leaves which nobody disturbs."""
    with tempfile.TemporaryDirectory() as folder:
        store = FolderStore(Path(folder))
        key = write(store, LoggedTeacher(Path(folder) / "log"), dataset).key("manifest.json")
        return key, store.get(key)


class _ClientOfParent(S3Store):
    """Saves each forked process the making of a client; its connections are closed before."""

    @property
    def _client(self) -> Any:
        return self._connected[1]


def for_children(address: str) -> S3Store:
    """A store on S3 that has read once what boto3 reads at its first requests, and holds no connection."""
    store = _ClientOfParent(address.removeprefix("s3://"))
    write(store, LoggedTeacher(Path(os.devnull)), dataset_of("warm"))
    write(store, LoggedTeacher(Path(os.devnull)), dataset_of("warm"))
    store._client.close()
    return store


class Board:
    """Numbers that forked processes share."""

    def __init__(self, names: str) -> None:
        self._places = {name: place for place, name in enumerate(names.split())}
        self._numbers = np.frombuffer(mmap.mmap(-1, 8 * len(self._places)), dtype=np.int64)

    def __getitem__(self, name: str) -> int:
        return int(self._numbers[self._places[name]])

    def __setitem__(self, name: str, value: int) -> None:
        self._numbers[self._places[name]] = value


def forked(run: Callable[[], object]) -> int:
    """Start ``run`` in a copy of this process, without waiting; returns the copy's id."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        # The threads that torch may have started did not come along.
        torch.set_num_threads(1)
        run()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def ended(process: int, seconds: float = WAIT_SECONDS) -> int:
    """Wait for a forked process; its exit status, negative for the signal that ended it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    raise AssertionError(f"a process did not end within {seconds:.0f} seconds")


def after(seconds: float) -> Kill:
    """Kills a process some time after it has begun its work."""

    def kill(run: Callable[[], object]) -> bool:
        board = Board("started")

        def work() -> None:
            board["started"] = 1
            run()

        process = forked(work)
        deadline = time.monotonic() + WAIT_SECONDS
        while not board["started"] and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(seconds)
        os.kill(process, signal.SIGKILL)
        status = ended(process)
        assert status in (0, -signal.SIGKILL)
        return status != 0

    return kill


def before_step(number: int, of: Callable[[str, tuple[Any, ...]], bool], board: Board | None = None) -> Kill:
    """Kills a process just before its step with this number, from 1.

    Args:
        number: The step.
        of: Tells by an audit event of Python and its arguments whether it is a step.
        board: Its ``steps`` are counted up.
    """

    def kill(run: Callable[[], object]) -> bool:
        counted = board or Board("steps")

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if of(event, arguments):
                counted["steps"] += 1
                if counted["steps"] == number:
                    os.kill(os.getpid(), signal.SIGKILL)

        def work() -> None:
            sys.addaudithook(hook)
            run()

        status = ended(forked(work))
        assert status in (0, -signal.SIGKILL)
        return status != 0

    return kill


def changes_below(folder: Path) -> Callable[[str, tuple[Any, ...]], bool]:
    """Every change of a file or folder below ``folder``: make, write, give rights, rename, link, remove."""

    def of(event: str, arguments: tuple[Any, ...]) -> bool:
        if not arguments or not str(arguments[0]).startswith(str(folder)):
            return False
        if event == "open":
            return bool(int(arguments[2]) & (os.O_WRONLY | os.O_RDWR))
        return event in ("os.mkdir", "os.rename", "os.link", "os.remove", "os.chmod", "os.truncate")

    return of


def requests(event: str, arguments: tuple[Any, ...]) -> bool:
    """Every connection and every piece of a request that is sent; the reply to the last piece has come by then."""
    return event in ("http.client.connect", "http.client.send")


def steps_of(run: Callable[[], object], of: Callable[[str, tuple[Any, ...]], bool]) -> int:
    """How many steps there are when nobody interferes."""
    board = Board("steps")
    assert not before_step(-1, of, board)(run)
    return board["steps"]


def is_partial(store: ObjectStore, dataset: str) -> bool | None:
    """Whether a reader would find a cache that is not whole; None when it finds none."""
    key, whole = undisturbed(dataset)
    try:
        content = store.get(key)
    except MissingObjectError:
        return None
    try:
        manifest = read_manifest(content, key)
        for part in manifest.parts:
            store.get(manifest.key(part.name), part.sha256)
    except (IntegrityError, MissingObjectError):
        return True
    return content != whole


@contextmanager
def watched(store: ObjectStore, datasets: list[str]) -> Iterator[Board]:
    """A reader in a process of its own that looks at the cache ``datasets[board["round"]]`` all the time."""
    board = Board("round stop looks partial whole")

    def look() -> None:
        while not board["stop"]:
            partial = is_partial(store, datasets[board["round"]])
            board["looks"] += 1
            if partial is not None:
                board["partial" if partial else "whole"] += 1
            time.sleep(0.004)

    process = forked(look)
    try:
        yield board
    finally:
        board["stop"] = 1
        assert ended(process) == 0


@dataclass
class Outcome:
    """What came of interrupted writers."""

    kills: int = 0
    looks: int = 0
    """How often the reader looked."""
    partial_seen: int = 0
    """How often it saw a cache that was not whole, and how often one lay there after a kill."""
    rescored: int = 0
    """Rows of finished parts that were scored again."""
    not_identical: int = 0
    """Reruns that did not end with the manifest of an undisturbed writer, over sound parts."""

    @property
    def is_flawless(self) -> bool:
        return self.partial_seen == self.rescored == self.not_identical == 0

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in vars(self).items())


def interrupted(
    own: ObjectStore,
    of_children: ObjectStore,
    kills: Sequence[Kill],
    log: Path,
    write: Write = write,
    *,
    enough: int | None = None,
) -> Outcome:
    """Kill a writer of a new cache with each of ``kills``, then run it to its end.

    Args:
        own: The store, for this process.
        of_children: The same store, for forked processes: not used here, so that they inherit no connection.
        kills: How.
        log: File for what the teacher is asked.
        write: The writer.
        enough: How many writers must have been killed before they ended; without it all of ``kills`` are tried.
    """
    outcome, teacher = Outcome(), LoggedTeacher(log)
    series = next(_SERIES)
    datasets = [dataset_of(f"{series} {number}") for number in range(len(kills))]
    for dataset in datasets:
        undisturbed(dataset)
    with watched(of_children, datasets) as board:
        for number, (kill, dataset) in enumerate(zip(kills, datasets, strict=True)):
            if outcome.kills == enough:
                break
            board["round"] = number
            outcome.kills += kill(functools.partial(write, of_children, teacher, dataset))
            outcome.partial_seen += is_partial(own, dataset) is True
            finished = _finished(own, dataset)
            teacher.forget()
            try:
                write(own, teacher, dataset)
            except RecstillError:
                outcome.not_identical += 1
            else:
                outcome.not_identical += is_partial(own, dataset) is not False
            outcome.rescored += sum(point // ROWS_PER_PART in finished for point in teacher.asked())
        looks = board["looks"]
        while board["looks"] < looks + 2:
            time.sleep(0.002)
    outcome.looks, outcome.partial_seen = board["looks"], outcome.partial_seen + board["partial"]
    return outcome


def random_times(run: Callable[[], object], count: int, seed: int) -> list[Kill]:
    """Kills at random times within the time that ``run`` takes when nobody interferes."""
    board = Board("nanoseconds")

    def timed() -> None:
        started = time.monotonic_ns()
        run()
        board["nanoseconds"] = time.monotonic_ns() - started

    assert ended(forked(timed)) == 0
    moments = random.Random(seed)
    return [after(moments.uniform(0, board["nanoseconds"] / 1e9)) for _ in range(count)]


def _finished(store: ObjectStore, dataset: str) -> set[int]:
    """Numbers of the parts whose record lies in the store."""
    folder = undisturbed(dataset)[0].removesuffix("manifest.json")
    records = (re.fullmatch(r"part-(\d{5})\.json", entry.key.removeprefix(folder)) for entry in store.list(folder))
    return {int(record[1]) for record in records if record}
