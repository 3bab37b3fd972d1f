"""A variant with an index beside the others: judged, weighed and timed like them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.progress import Progress

from components.data.dataset import PreparedDataset
from components.errors import IntegrityError
from components.evaluation.benchmark import Timed, benchmark
from components.evaluation.contenders import contenders_of
from components.evaluation.measuring import judge_all, requests_of
from components.evaluation.scoring import onnx_scorer
from components.settings.evaluation import EvaluationSettings
from components.storage.atomic import read_json, write_json
from components.tasks.building import task_of
from tests.unit.evaluation.tiny_artifacts import MAX_LENGTH, write_searched


@pytest.fixture(scope="module")
def searched(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The artifacts with such a variant in the place of the others, and its record."""
    copy = Path(shutil.copytree(artifacts, tmp_path_factory.mktemp("searched") / "tiny"))
    record = write_searched(artifacts, copy / "quantized")
    others = [one for one in read_json(copy / "quantized" / "variants.json")["variants"] if one["form"] == "fp32"]
    write_json(copy / "quantized" / "variants.json", {"variants": [*others, record]})
    return copy, record


def test_it_is_judged_and_its_bytes_are_those_of_both_files(
    searched: tuple[Path, dict[str, Any]], prepared: PreparedDataset
) -> None:
    artifacts, record = searched
    found = {one.name: one for one in contenders_of(artifacts, {})}
    one, task = found["pruned.int8_index"], task_of("next_item", prepared, MAX_LENGTH)
    assert one.bytes == record["bytes"] > record["index"]["bytes"] > prepared.items * 8
    assert one.shippable
    judged = judge_all([one, found["pruned.fp32"]], task, {}, Progress(disable=True))
    figures, whole = (judged[name].figures for name in (one.name, "pruned.fp32"))
    for key in ("ndcg10", "recall10", "ndcg10_seen_kept"):
        assert figures[key] == pytest.approx(whole[key], abs=0.03) and figures[key] > 0


def test_what_is_not_found_stands_behind_all_that_is(
    searched: tuple[Path, dict[str, Any]], prepared: PreparedDataset
) -> None:
    task = task_of("next_item", prepared, MAX_LENGTH)
    batch = next(iter(task.evaluation_batches("test", 7)))
    assert batch.seen is not None
    scores = onnx_scorer(searched[0] / "quantized" / "pruned.int8_index.onnx", 3)(batch)
    known = torch.bincount(batch.seen[0], minlength=7)
    assert scores.shape == (7, prepared.items)
    assert torch.isfinite(scores).sum(1).tolist() == (known + 3).clamp(max=prepared.items).tolist()
    exact = onnx_scorer(searched[0] / "quantized" / "pruned.fp32.onnx")(batch)
    there = torch.isfinite(scores)
    assert np.allclose(scores[there], exact[there], atol=0.05 * float(exact.abs().max()))


def test_it_is_timed_from_the_history_to_the_items_without_torch(
    searched: tuple[Path, dict[str, Any]], prepared: PreparedDataset
) -> None:
    settings = EvaluationSettings(latency_requests=10, throughput_batches=2)
    requests = requests_of(task_of("next_item", prepared, MAX_LENGTH), settings)
    path = searched[0] / "quantized" / "pruned.int8_index.onnx"
    own = Timed("own", "onnx", path, MAX_LENGTH)
    timing = benchmark([own], own, {MAX_LENGTH: requests}, Progress(disable=True))["own"]
    assert 0 < timing.p50_ms <= timing.p95_ms and timing.throughput > 0
    assert timing.peak_mib < 300, "no torch in its process"


def test_an_index_that_is_missing_or_of_another_model_is_told(
    searched: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = searched[0] / "quantized"
    model = Path(shutil.copy(folder / "pruned.int8_index.onnx", tmp_path))
    with pytest.raises(IntegrityError, match=r"pruned.int8_index.faiss, the index of .* cannot be read"):
        onnx_scorer(model)
    content = (folder / "pruned.int8_index.faiss").read_bytes()
    model.with_suffix(".faiss").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IntegrityError, match="SHA-256"):
        onnx_scorer(model)
