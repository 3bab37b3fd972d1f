"""A scenario run whole in clones of this checkout, once a seed, and figures of the runs with their intervals."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from components.evaluation.comparison import paired_bootstrap
from components.evaluation.contenders import Contender, contenders_of
from components.evaluation.scoring import network_scorer, onnx_scorer
from components.networks.building import read_network
from components.networks.ensemble import read_teacher
from components.serving.holdout import score
from components.storage.atomic import read_json
from components.tasks.building import open_task
from components.tasks.contract import Judgement
from tests.benchmarks.figures import Figure

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
SAMPLES = 4000
SHIPPED = "shipped"
"""In the place of a contender's name: whatever variant the run has chosen."""


@dataclass(frozen=True)
class Run:
    """One seed's run.

    Attributes:
        root: The clone.
        scenario: What was run there.
        seed: Of its trainings.
        seconds: Wall seconds of the command.
        cpu_seconds: Processor seconds of it and of all that it started: what a busy machine does not change much.
    """

    root: Path
    scenario: str
    seed: int
    seconds: float
    cpu_seconds: float

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts" / self.scenario

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of ``report/metrics.json``."""
        return read_json(self.artifacts / "report" / "metrics.json")

    @property
    def dataset(self) -> str:
        """Digest of the prepared data set."""
        return str(read_json(self.artifacts / "dataset" / "dataset.json")["digest"])

    @property
    def choice(self) -> dict[str, Any]:
        """The content of ``report/choice.json``."""
        return read_json(self.artifacts / "report" / "choice.json")

    @property
    def answered(self) -> float:
        """The primary measure of the package's answers, asked for every test point as a client would."""
        task = open_task(read_json(self.artifacts / "package" / "package.json")["task"], self.artifacts / "dataset")
        return float(score(self.artifacts / "package", task.beyond(None)).values.mean())

    def judged(self, name: str) -> Judgement:
        """A contender (``teacher``, ``baseline``, ``shipped``, ``pruned.fp32`` ...) on the test points."""
        return _judged(self, str(self.choice["chosen"]) if name == SHIPPED else name)


class Benchmark(NamedTuple):
    """What a module of this folder measures.

    Attributes:
        scenario: Which one is run.
        figures: From the runs, one a seed, to what is printed.
        changes: ``key=value`` assignments below ``scenarios.<scenario>``, made before each run; ``{seed}`` is the seed.
    """

    scenario: str
    figures: Callable[[Sequence[Run]], list[Figure]]
    changes: tuple[str, ...] = ()


def run_scenario(benchmark: Benchmark, seed: int, folder: Path) -> Run:
    """Clone this checkout into ``folder`` and run the scenario there, from its source to its package."""
    root = folder / f"{benchmark.scenario}-{seed}"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(root)], check=True)
    made = ("seed={seed}", *benchmark.changes)
    changes = [f"scenarios.{benchmark.scenario}.{change.replace('{seed}', str(seed))}" for change in made]
    started, before = time.monotonic(), os.times()
    command = [str(BIN / "recstill"), "run", benchmark.scenario, *(word for one in changes for word in ("--set", one))]
    done = subprocess.run(command, cwd=root, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed in {root}")
    after = os.times()
    used = after.children_user - before.children_user + after.children_system - before.children_system
    return Run(root, benchmark.scenario, seed, time.monotonic() - started, used)


def level(name: str, runs: Sequence[Run], contender: str) -> Figure:
    """The primary measure over all seeds; the interval is of the test points."""
    values, users = _values(runs, contender)
    return _figure(name, values, np.zeros_like(values), users)


def difference(name: str, runs: Sequence[Run], contender: str, reference: str) -> Figure:
    """The primary measure of one contender above that of another, on the same points."""
    values, users = _values(runs, contender)
    return _figure(name, values, _values(runs, reference)[0], users)


def mean_of(name: str, runs: Sequence[Run], of: Callable[[Run], float]) -> Figure:
    """Any number of a run; low and high are the least and the greatest of the seeds."""
    found = [of(run) for run in runs]
    return Figure(name, float(np.mean(found)), min(found), max(found))


def costs(prefix: str, runs: Sequence[Run]) -> list[Figure]:
    """What ships as a share of the teacher: bytes (of fp32 weights) and latency; and the seconds of a whole run.

    And how far the package's own answers to the test requests are from what the report says of its variant: 0.
    """
    return [
        mean_of(f"{prefix}_package_gap", runs, lambda run: abs(run.answered - run.judged(SHIPPED).values.mean())),
        mean_of(f"{prefix}_bytes_ratio", runs, lambda run: run.metrics["shipped_bytes_ratio"]),
        mean_of(f"{prefix}_latency_ratio", runs, lambda run: run.metrics["shipped_latency_ratio"]),
        mean_of(f"{prefix}_run_s", runs, lambda run: run.seconds),
        mean_of(f"{prefix}_run_cpu_s", runs, lambda run: run.cpu_seconds),
    ]


def _figure(name: str, values: np.ndarray, reference: np.ndarray, users: np.ndarray) -> Figure:
    found = paired_bootstrap({name: values}, reference, users, samples=SAMPLES, seed=0)[name].difference
    return Figure(name, *found)


def _values(runs: Sequence[Run], contender: str) -> tuple[np.ndarray, np.ndarray]:
    """The primary measure of each test point, averaged over the seeds, and what the bootstrap draws.

    Where each seed has a split of its own, the points of all of them, one after the other.
    """
    judged = [run.judged(contender) for run in runs]
    if len({run.dataset for run in runs}) == 1:
        return np.mean([one.values for one in judged], axis=0), judged[0].users
    users = [one.users + number * (1 << 32) for number, one in enumerate(judged)]
    return np.concatenate([one.values for one in judged]), np.concatenate(users)


@cache
def _judged(run: Run, name: str) -> Judgement:
    task = open_task(read_json(run.artifacts / "package" / "package.json")["task"], run.artifacts / "dataset")
    found: dict[str, Contender] = {one.name: one for one in contenders_of(run.artifacts, {})}
    one = found[name]
    assert one.path is not None
    if one.runtime == "onnx":
        scorer = onnx_scorer(one.path)
    else:
        scorer = network_scorer((read_teacher if one.runtime == "teacher" else read_network)(one.path))
    return task.judge(scorer, task.reading(one.max_length).evaluation_batches("test", 256))
