"""Every contender on the same held-out events and the same requests: quality, size, speed, and the cost of it all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from rich.progress import Progress

from components.evaluation.benchmark import BATCH, Request, Requests, Timed, Timing, benchmark
from components.evaluation.comparison import paired_bootstrap, standard_error
from components.evaluation.contenders import Contender, reference_of, training_seconds
from components.evaluation.scoring import network_scorer, onnx_scorer
from components.networks.building import read_network
from components.networks.ensemble import read_teacher
from components.settings.evaluation import EvaluationSettings
from components.tasks.batch import EvaluationBatch, Scorer
from components.tasks.contract import Baseline, Judgement, Split, Task

_BATCH_SIZE = 128
FP32_BYTES = 4


def judge_all(
    contenders: Sequence[Contender], task: Task, baselines: Mapping[str, Baseline], progress: Progress
) -> dict[str, Judgement]:
    """The judgement of every contender on the test points.

    Args:
        contenders: Whose.
        task: Judges.
        baselines: What needs no training, by name.
        progress: Shows how far it is.

    Raises:
        DataError: There is no test point that could be predicted, or a contender's score is not a number.
    """
    line = progress.add_task("quality", total=len(contenders))
    longest = max(contender.max_length for contender in contenders)
    found = {}
    for contender in contenders:
        batches = task.reading(contender.max_length or longest).evaluation_batches("test", _BATCH_SIZE)
        untrained = contender.path is None
        scorer = baselines[contender.name].scorer if untrained else _scorer(contender, task.best_of)
        found[contender.name] = task.judge(scorer, batches)
        progress.advance(line)
    return found


def time_all(
    contenders: Sequence[Contender], task: Task, settings: EvaluationSettings, progress: Progress
) -> dict[str, Timing]:
    """Latency, throughput and memory of every contender that is a network.

    Args:
        contenders: Whose.
        task: Whose test points are the requests.
        settings: How many requests.
        progress: Shows how far it is.

    Raises:
        RecstillError: A contender cannot be run.
    """
    networks = [_timed(contender) for contender in contenders if contender.runtime is not None]
    requests = {length: requests_of(task.reading(length), settings) for length in {net.max_length for net in networks}}
    return benchmark(networks, _timed(reference_of(contenders)), requests, progress)


def requests_of(task: Task, settings: EvaluationSettings, split: Split = "test") -> Requests:
    """Real held-out points as requests: of all kinds alike, in a mixed order that is always the same.

    Args:
        task: Whose points.
        settings: How many.
        split: Which of them.
    """
    events = task.held_out(split)

    def spread(batch_size: int, count: int) -> list[EvaluationBatch]:
        batches = task.evaluation_batches(split, batch_size)
        stride = max(1, math.ceil(events / batch_size) // count)
        chosen = list(islice(batches, 0, stride * count, stride))
        # Where there are fewer than asked for, they come again.
        order = np.random.default_rng(0).permutation(count) % len(chosen)
        return [chosen[place] for place in order]

    return Requests(
        single=[_request(batch) for batch in spread(1, settings.latency_requests)],
        batches=[_request(batch) for batch in spread(BATCH, settings.throughput_batches)],
    )


def figures_of(
    contenders: Sequence[Contender],
    judged: Mapping[str, Judgement],
    timings: Mapping[str, Timing],
    *,
    costs: dict[str, dict[str, float]],
    settings: EvaluationSettings,
    members: int,
    primary: str,
) -> dict[str, dict[str, Any]]:
    """All numbers of every contender; what does not apply to one is left out.

    Args:
        contenders: Whose.
        judged: By name.
        timings: By name.
        costs: ``cost`` of each stage's metrics.
        settings: Of the bootstrap.
        members: Members of the teacher.
        primary: Key of the measure that intervals are of.
    """
    teacher = judged["teacher"]
    reference = reference_of(contenders)
    compared = paired_bootstrap(
        {name: found.values for name, found in judged.items()},
        teacher.values,
        teacher.users,
        samples=settings.bootstrap_samples,
        seed=settings.bootstrap_seed,
    )
    figures: dict[str, dict[str, Any]] = {}
    for contender in contenders:
        found, comparison = judged[contender.name], compared[contender.name]
        own: dict[str, float | None] = {
            **found.figures,
            f"{primary}_standard_error": standard_error(found.values, found.users),
            "difference": comparison.difference.estimate,
            "difference_low": comparison.difference.low,
            "difference_high": comparison.difference.high,
            "retention": comparison.retention.estimate,
            "retention_low": comparison.retention.low,
            "retention_high": comparison.retention.high,
            "parameters": contender.parameters,
            "bytes": contender.bytes,
            "training_seconds": training_seconds(contender, costs, members),
        }
        if contender.bytes is not None:
            own["bytes_ratio"] = contender.bytes / fp32_bytes(reference)
        if contender.name in timings:
            own |= timings[contender.name]._asdict()
        figures[contender.name] = {
            key: round(value, 6) if isinstance(value, float) else value
            for key, value in own.items()
            if value is not None and math.isfinite(value)
        }
    return figures


def fp32_bytes(contender: Contender) -> int:
    """Bytes of its weights at four a parameter."""
    assert contender.parameters is not None
    return contender.parameters * FP32_BYTES


def _scorer(contender: Contender, best_of: int) -> Scorer:
    assert contender.path is not None
    if contender.runtime == "onnx":
        return onnx_scorer(contender.path, best_of)
    return network_scorer((read_teacher if contender.runtime == "teacher" else read_network)(contender.path))


def _timed(contender: Contender) -> Timed:
    assert contender.runtime is not None and contender.path is not None
    return Timed(contender.name, contender.runtime, contender.path, contender.max_length)


def _request(batch: EvaluationBatch) -> Request:
    return Request(batch.feed, tuple(tensor.numpy() for tensor in batch.inputs))
