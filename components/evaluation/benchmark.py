"""How fast a contender answers, and how much memory it takes: one thread, real histories, fair ratios.

Each contender runs in a process of its own, one at a time; the others wait. A machine's speed drifts by more than the
differences that count here, so the reference (one member of the teacher in torch, eager) is timed in turns with every
contender, and a latency ratio compares only times that were taken side by side.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from rich.progress import Progress
from safetensors.numpy import save_file

from components.errors import RecstillError
from components.evaluation import benchmark_worker

Runtime = Literal["onnx", "openvino", "network", "teacher"]
"""``onnx``: a file in ONNX Runtime. ``openvino``: a folder of OpenVINO's. ``network``, ``teacher``: a checkpoint's or a
teacher's folder in torch, eager."""
ROUNDS = 6
BATCH_ROUNDS = 2
BATCH = 64


class Timed(NamedTuple):
    """What to time: a name, how to run it, its file or folder, and the events that it reads at most."""

    name: str
    runtime: Runtime
    path: Path
    max_length: int


class Timing(NamedTuple):
    """What was measured of one contender, from the ready input to the scores of all items, or to those that were found.

    Attributes:
        p50_ms, p95_ms, p99_ms: Percentiles of the latency at batch 1.
        latency_ratio: Median latency at batch 1 as a share of the reference's, timed in turns.
        throughput: Histories a second at batch 64; of two passes over the batches the faster time of each counts.
        peak_mib: The most memory that the process held, with its runtime and these requests.
    """

    p50_ms: float
    p95_ms: float
    p99_ms: float
    latency_ratio: float
    throughput: float
    peak_mib: float


class Request(NamedTuple):
    """One request in both forms: ``feed`` for ONNX by input name, ``inputs`` for torch in order."""

    feed: dict[str, np.ndarray]
    inputs: tuple[np.ndarray, ...]


class Requests(NamedTuple):
    """The requests of a benchmark, for networks that read histories of one length at most.

    Attributes:
        single: Of batch 1.
        batches: Of batch 64 (the last of a small data set may be smaller).
    """

    single: Sequence[Request]
    batches: Sequence[Request]


def benchmark(
    contenders: Sequence[Timed], reference: Timed, requests: Mapping[int, Requests], progress: Progress
) -> dict[str, Timing]:
    """Time every contender.

    Args:
        contenders: What to time.
        reference: What latency ratios compare with.
        requests: By the events of a history that they hold at most; as many for every length.
        progress: Shows how far it is.

    Raises:
        RecstillError: A contender cannot be run.
    """
    line = progress.add_task("latency and memory", total=len(contenders))
    timings = {}
    with tempfile.TemporaryDirectory() as folder:
        files = {length: Path(folder) / f"{length}.safetensors" for length in requests}
        for length, file in files.items():
            _write_requests(file, requests[length])
        with _worker(reference, files[reference.max_length]) as beside:
            for contender in contenders:
                with _worker(contender, files[contender.max_length]) as worker:
                    timings[contender.name] = _timing(worker, beside, requests[contender.max_length])
                progress.advance(line)
    return timings


class _Worker:
    """The other end of :mod:`components.evaluation.benchmark_worker`."""

    def __init__(self, timed: Timed, process: subprocess.Popen[str], errors: Path) -> None:
        self._timed, self._process, self._errors = timed, process, errors
        self.peak_mib = 0.0
        self._answer()

    def run(self, group: str, first: int, stop: int) -> list[int]:
        """Nanoseconds of each request ``first`` to ``stop - 1``."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"group": group, "first": first, "stop": stop}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self._answer()
        self.peak_mib = answer["peak_mib"]
        return list(answer["nanoseconds"])

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            reason = self._errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RecstillError(
                f"{self._timed.name} ({self._timed.path}) ended with status {status} while it was timed: "
                + "\n".join(reason[-3:]),
                "Run the stage that made it again.",
            )
        return json.loads(line)


@contextmanager
def _worker(timed: Timed, requests: Path) -> Iterator[_Worker]:
    command = [sys.executable, "-m", benchmark_worker.__name__]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    with tempfile.NamedTemporaryFile("w") as errors:
        process = subprocess.Popen(
            [*command, timed.runtime, str(timed.path), str(requests)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **one_thread},
        )
        with process:
            try:
                yield _Worker(timed, process, Path(errors.name))
            except BaseException:
                process.kill()
                raise


def _timing(worker: _Worker, reference: _Worker, requests: Requests) -> Timing:
    count = len(requests.single)
    bounds = np.linspace(0, count, min(ROUNDS, count) + 1).astype(int).tolist()
    times: list[int] = []
    ratios = []
    for first, stop in pairwise(bounds):
        beside = reference.run("single", first, stop)
        own = worker.run("single", first, stop)
        ratios.append(np.median(own) / np.median(beside))
        times += own
    p50, p95, p99 = (np.percentile(times, (50, 95, 99)) / 1e6).tolist()
    batches = [worker.run("batch", 0, len(requests.batches)) for _ in range(BATCH_ROUNDS)]
    seconds = np.min(batches, axis=0).sum() / 1e9
    histories = sum(len(next(iter(request.feed.values()))) for request in requests.batches)
    return Timing(p50, p95, p99, float(np.median(ratios)), histories / float(seconds), worker.peak_mib)


def _write_requests(path: Path, requests: Requests) -> None:
    tensors = {}
    for group, members in (("single", requests.single), ("batch", requests.batches)):
        for number, request in enumerate(members):
            for key, array in request.feed.items():
                tensors[f"{group}.{number}.feed.{key}"] = np.ascontiguousarray(array)
            for place, array in enumerate(request.inputs):
                tensors[f"{group}.{number}.input.{place}"] = np.ascontiguousarray(array)
    save_file(tensors, path)
