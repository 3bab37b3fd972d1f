from pathlib import Path

import numpy as np
import pytest
from rich.progress import Progress

from components.data.dataset import PreparedDataset
from components.errors import RecstillError
from components.evaluation.benchmark import Request, Requests, Timed, benchmark
from components.evaluation.benchmark_worker import peak_mib
from components.evaluation.measuring import requests_of
from components.settings.evaluation import EvaluationSettings
from components.tasks.building import task_of

SETTINGS = EvaluationSettings(latency_requests=12, throughput_batches=2)


@pytest.fixture
def requests(prepared: PreparedDataset) -> Requests:
    return requests_of(task_of("next_item", prepared, 8), SETTINGS)


def test_each_contender_is_timed_in_a_process_of_its_own(artifacts: Path, requests: Requests) -> None:
    # What this process holds must not count for the processes that it starts.
    ballast = np.ones(40_000_000)
    model = Timed("small", "onnx", artifacts / "quantized" / "pruned.fp32.onnx", 8)
    reference = Timed("member", "network", artifacts / "teacher" / "member-0", 8)
    found = benchmark([model, reference], reference, {8: requests}, Progress(disable=True))
    small, member = found["small"], found["member"]
    assert 0 < small.p50_ms <= small.p95_ms <= small.p99_ms
    assert small.throughput > 0
    assert small.latency_ratio < 1
    assert 0.3 < member.latency_ratio < 3
    assert 10 < small.peak_mib < member.peak_mib < ballast.nbytes / 2**20 + peak_mib()
    assert small.peak_mib < 200, "ONNX Runtime is timed without torch in its process"


def test_a_contender_that_cannot_be_run_is_named(artifacts: Path, requests: Requests, tmp_path: Path) -> None:
    model = Timed("small", "onnx", artifacts / "quantized" / "pruned.fp32.onnx", 8)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.path.read_bytes()[:100])
    with pytest.raises(RecstillError, match=r"^hurt .*broken\.onnx"):
        benchmark([Timed("hurt", "onnx", broken, 8)], model, {8: requests}, Progress(disable=True))


def test_requests_are_real_test_histories_of_every_length(prepared: PreparedDataset, requests: Requests) -> None:
    assert len(requests.single) == 12
    assert {len(request.feed["length"]) for request in requests.single} == {1}
    lengths = [int(request.feed["length"][0]) for request in requests.single]
    assert len(set(lengths)) > 1
    assert lengths != sorted(lengths)
    assert len(requests.batches) == 2, "a data set with fewer batches gives them again"
    ends = prepared.rows("test")
    real = {tuple(prepared.item[max(prepared.offsets[prepared.user[end]], end - 8) : end]) for end in ends}
    assert all(tuple(request.feed["items"][0]) in real for request in requests.single)


def test_both_forms_of_a_request_are_the_same_history(requests: Requests) -> None:
    def histories(request: Request) -> list[tuple[int, ...]]:
        items, valid = request.inputs
        width = items.shape[1]
        return [tuple(items[row, : place - row * width + 1]) for row, place in enumerate(valid)]

    for request in [*requests.single, *requests.batches]:
        served = zip(request.feed["items"], request.feed["length"], strict=True)
        assert histories(request) == [tuple(items[:length]) for items, length in served]
