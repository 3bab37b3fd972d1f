"""Every contender on the same held-out events and the same requests: quality, size, speed, and the cost of it all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from rich.progress import Progress

from components.data.dataset import PreparedDataset
from components.evaluation.baselines import item_knn_scorer, popularity_scorer
from components.evaluation.benchmark import BATCH, Request, Requests, Timed, Timing, benchmark
from components.evaluation.comparison import paired_bootstrap, standard_error
from components.evaluation.contenders import Contender, reference_of, training_seconds
from components.evaluation.scoring import Ranking, Scorer, network_scorer, onnx_scorer, quality, ranking
from components.networks.building import read_network
from components.networks.ensemble import read_teacher
from components.settings.evaluation import EvaluationSettings
from components.tasks.batch import EvaluationBatch
from components.tasks.building import task_of

_BATCH_SIZE = 128
FP32_BYTES = 4


def rank_all(
    contenders: Sequence[Contender], dataset: PreparedDataset, task: str, neighbours: int, progress: Progress
) -> dict[str, Ranking]:
    """The ranking of every contender on the test events.

    Args:
        contenders: Whose.
        dataset: Whose test events.
        task: Name of the task.
        neighbours: Of item-kNN.
        progress: Shows how far it is.

    Raises:
        DataError: There is no test event with a history, or a contender's score is not a number.
    """
    line = progress.add_task("ranking the catalogue", total=len(contenders))
    longest = max(contender.max_length for contender in contenders)
    found = {}
    for contender in contenders:
        batches = task_of(task, dataset, contender.max_length or longest).evaluation_batches("test", _BATCH_SIZE)
        found[contender.name] = ranking(_scorer(contender, dataset, neighbours), batches, dataset.items)
        progress.advance(line)
    return found


def time_all(
    contenders: Sequence[Contender],
    dataset: PreparedDataset,
    task: str,
    settings: EvaluationSettings,
    progress: Progress,
) -> dict[str, Timing]:
    """Latency, throughput and memory of every contender that is a network.

    Args:
        contenders: Whose.
        dataset: Whose test histories are the requests.
        task: Name of the task.
        settings: How many requests.
        progress: Shows how far it is.

    Raises:
        RecstillError: A contender cannot be run.
    """
    networks = [_timed(contender) for contender in contenders if contender.runtime is not None]
    requests = {
        length: requests_of(dataset, task, length, settings) for length in {timed.max_length for timed in networks}
    }
    return benchmark(networks, _timed(reference_of(contenders)), requests, progress)


def requests_of(dataset: PreparedDataset, task: str, max_length: int, settings: EvaluationSettings) -> Requests:
    """Real test histories as requests: of all lengths alike, in a mixed order that is always the same.

    Args:
        dataset: Whose test histories.
        task: Name of the task.
        max_length: Events of a history that a request holds at most.
        settings: How many.
    """
    events = len(dataset.rows("test"))

    def spread(batch_size: int, count: int) -> list[EvaluationBatch]:
        batches = task_of(task, dataset, max_length).evaluation_batches("test", batch_size)
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
    rankings: Mapping[str, Ranking],
    timings: Mapping[str, Timing],
    *,
    costs: dict[str, dict[str, float]],
    settings: EvaluationSettings,
    members: int,
) -> dict[str, dict[str, Any]]:
    """All numbers of every contender; what does not apply to one is left out.

    Args:
        contenders: Whose.
        rankings: By name.
        timings: By name.
        costs: ``cost`` of each stage's metrics.
        settings: Of the bootstrap.
        members: Members of the teacher.
    """
    teacher = rankings["teacher"]
    reference = reference_of(contenders)
    compared = paired_bootstrap(
        {name: found.ndcg for name, found in rankings.items()},
        teacher.ndcg,
        teacher.users,
        samples=settings.bootstrap_samples,
        seed=settings.bootstrap_seed,
    )
    figures: dict[str, dict[str, Any]] = {}
    for contender in contenders:
        found, comparison = rankings[contender.name], compared[contender.name]
        own: dict[str, float | None] = {
            **quality(found),
            "ndcg10_standard_error": standard_error(found.ndcg, found.users),
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


def _scorer(contender: Contender, dataset: PreparedDataset, neighbours: int) -> Scorer:
    if contender.path is None:
        return popularity_scorer(dataset) if contender.name == "popularity" else item_knn_scorer(dataset, neighbours)
    if contender.runtime == "onnx":
        return onnx_scorer(contender.path)
    return network_scorer((read_teacher if contender.runtime == "teacher" else read_network)(contender.path))


def _timed(contender: Contender) -> Timed:
    assert contender.runtime is not None and contender.path is not None
    return Timed(contender.name, contender.runtime, contender.path, contender.max_length)


def _request(batch: EvaluationBatch) -> Request:
    return Request(batch.feed, tuple(tensor.numpy() for tensor in batch.inputs))
