"""Throughput of training steps and of scoring, as ratios of CPU seconds of one thread, measured in turns."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterable
from itertools import islice

import torch

from components.soft_labels.labels import SoftLabels
from components.soft_labels.scoring import Scorer, finish_part
from components.storage.folder_store import FolderStore
from components.tasks.batch import Batch
from components.tasks.next_item import NextItem
from components.training.data import LabelledBatches
from components.training.distilling import DistillationTraining
from components.training.fitting import initial_network
from components.training.module import NetworkTraining, SupervisedTraining
from tests.benchmarks.soft_labels.quality import CACHED, cache
from tests.benchmarks.soft_labels.recipe import DISTILLATION, QUICK, Bench, network, optimization, soft_labels

_ROUNDS = 7
_STEPS = 10 if QUICK else 30
_SCORED_PARTS = 1 if QUICK else 2


def step_ratios(bench: Bench) -> dict[str, float]:
    """``cached_step_ratio`` and ``online_teacher_ratio``."""
    torch.set_num_threads(1)
    task = NextItem(bench.dataset, network(bench.name, student=True).max_length)
    batch_size = optimization(bench.name, student=True).batch_size
    labels = cache(bench)

    def batches(turn: int) -> Iterable[Batch]:
        return task.training_batches(batch_size, seed=1, epoch=turn)

    hard, cached, online = _hard(bench, task), _cached(bench, task, labels), _cached(bench, task, labels)

    def online_batches(turn: int) -> Iterable[Batch]:
        for batch in batches(turn):
            with torch.inference_mode():
                logits = bench.teacher(*batch.inputs)
            yield batch._replace(labels=SoftLabels(None, torch.log_softmax(logits, dim=1), None, task.outcomes))

    ways: dict[str, Callable[[int], float]] = {
        "hard": lambda turn: _steps(hard, batches(turn)),
        "cached": lambda turn: _steps(cached, LabelledBatches(batches(turn), labels)),
        "online": lambda turn: _steps(online, online_batches(turn)),
    }
    rates = _in_turns(ways)
    return {
        "cached_step_ratio": rates["cached"] / rates["hard"],
        "online_teacher_ratio": rates["cached"] / rates["online"],
    }


def scoring_ratio(bench: Bench, codec: str = CACHED) -> dict[str, float]:
    """Rows a second into the store, beside the teacher's forward pass on the same windows and nothing else.

    The bare pass is measured in batches of 16 windows, as the writer has them, which is the fastest on a processor and
    so the harder bar; and in batches of 64, as one would call a network.
    """
    torch.set_num_threads(1)
    settings = soft_labels(codec)
    scorer = Scorer(bench.teacher, bench.task, settings)
    plan = scorer.plan("2" * 64, bench.dataset.digest)
    stop = plan.points(_SCORED_PARTS - 1).stop
    folder = bench.folder / "scoring"

    def bare(windows: int) -> float:
        rows = 0
        started = time.process_time()
        with torch.inference_mode():
            for batch in bench.task.scoring_batches(0, stop, windows):
                bench.teacher(*batch.inputs)
                rows += len(batch.points)
        return rows / (time.process_time() - started)

    def written(turn: int) -> float:
        shutil.rmtree(folder, ignore_errors=True)
        started = time.process_time()
        for number in range(_SCORED_PARTS):
            finish_part(FolderStore(folder), plan, number, scorer, lambda rows, reused: None)
        return stop / (time.process_time() - started)

    rates = _in_turns({"bare": lambda turn: bare(16), "bare_64": lambda turn: bare(64), "written": written})
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "scoring_ratio": rates["written"] / rates["bare"],
        "scoring_ratio_to_batches_of_64": rates["written"] / rates["bare_64"],
        "rows_per_cpu_s": rates["written"],
    }


def larger_teacher(bench: Bench) -> Bench:
    """The same with a teacher of 4 blocks and width 256, untrained: what labels cost depends on its size alone."""
    small = network(bench.name, student=False)
    large = small.model_copy(update={"dim": 256, "blocks": 4, "heads": 4, "ffn_dim": 1024})
    return bench._replace(teacher=initial_network(large, bench.task.outcomes, seed=0).eval())


def _hard(bench: Bench, task: NextItem) -> NetworkTraining:
    student = initial_network(network(bench.name, student=True), task.outcomes, seed=0)
    return SupervisedTraining(student, optimization(bench.name, student=True), seed=0, task=task).train()


def _cached(bench: Bench, task: NextItem, labels) -> NetworkTraining:
    student = initial_network(network(bench.name, student=True), task.outcomes, seed=0)
    return DistillationTraining(
        student, optimization(bench.name, student=True), seed=0, task=task, labels=labels, distillation=DISTILLATION
    ).train()


def _steps(module: NetworkTraining, batches: Iterable[Batch]) -> float:
    """Points a CPU second: loss, gradient, clipping, the optimizer's step and the moving average."""
    adam = torch.optim.AdamW(module.network.parameters(), lr=1e-3, fused=True)
    points, started = 0, 0.0
    for number, batch in enumerate(islice(batches, _STEPS + 2)):
        if number == 2:
            points, started = 0, time.process_time()
        adam.zero_grad()
        (module.loss_sum(batch) / len(batch.points)).backward()
        torch.nn.utils.clip_grad_norm_(module.network.parameters(), 1.0)
        adam.step()
        if module.average is not None:
            module.average.update_parameters(module.network)
        points += len(batch.points)
    return points / (time.process_time() - started)


def _in_turns(ways: dict[str, Callable[[int], float]]) -> dict[str, float]:
    """The median rate of each, a round after the other, so that a busy minute strikes all of them."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(_ROUNDS):
        for name, way in ways.items():
            rates[name].append(way(turn))
    return {name: statistics.median(found) for name, found in rates.items()}
