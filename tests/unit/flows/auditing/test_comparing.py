"""Two runs of the same: what may differ, and what may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from flows.auditing.comparing import Tolerance, compare_files, compare_folders, is_measured

METRICS = {
    "contenders": {"teacher": {"ndcg10": 0.74, "p50_ms": 0.33, "latency_ratio": 1.0, "throughput": 3000.5}},
    "shipped_latency_ratio": 0.07,
    "cost": {"seconds": 1.5, "cpu_seconds": 3.0, "peak_mib": 600.1},
}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
    return tmp_path / "first", tmp_path / "again"


def of_json(pair: tuple[Path, Path], first: Any, again: Any) -> Any:
    for folder, record in zip(pair, (first, again), strict=True):
        (folder / "metrics.json").write_text(json.dumps(record))
    return compare_files(pair[0] / "metrics.json", pair[1] / "metrics.json", "report/metrics.json")


def test_equal_bytes_are_identical(pair: tuple[Path, Path]) -> None:
    assert of_json(pair, METRICS, METRICS).verdict == "identical"


def test_times_and_memory_may_differ(pair: tuple[Path, Path]) -> None:
    again = {
        "contenders": {"teacher": {"ndcg10": 0.74, "p50_ms": 0.9, "latency_ratio": 1.1, "throughput": 1000.5}},
        "shipped_latency_ratio": 0.09,
        "cost": {"seconds": 9.5, "cpu_seconds": 3.5, "peak_mib": 601.1},
    }
    found = of_json(pair, METRICS, again)
    assert found.verdict == "measured"
    assert found.measured == 7
    assert found.figures == {}


def test_a_quality_figure_may_not_differ_and_is_named(pair: tuple[Path, Path]) -> None:
    again = json.loads(json.dumps(METRICS))
    again["contenders"]["teacher"]["ndcg10"] = 0.75
    found = of_json(pair, METRICS, again)
    assert found.verdict == "other figures"
    assert found.figures == {"contenders.teacher.ndcg10": (0.74, 0.75)}


@pytest.mark.parametrize("name", ["training_seconds", "a.p95_ms", "cost.whatever", "shipped_latency_ratio", "peak_mib"])
def test_measured_figures_are_known_by_their_names(name: str) -> None:
    assert is_measured(name)


@pytest.mark.parametrize("name", ["ndcg10", "bytes", "window_seconds_of.user", "items", "parameters", "difference_low"])
def test_no_other_figure_counts_as_measured(name: str) -> None:
    assert not is_measured(name)


def test_the_digest_of_a_file_beside_it_is_no_difference_of_its_own(pair: tuple[Path, Path]) -> None:
    first, again = ({"files": {"card.md": {"sha256": digit * 64, "bytes": 5}}} for digit in "ab")
    assert of_json(pair, first, again).verdict == "measured"
    assert of_json(pair, {**first, "dirty": False}, {**again, "dirty": True}).verdict == "other figures"


def test_a_table_is_told_from_its_bytes(pair: tuple[Path, Path]) -> None:
    table = pl.DataFrame({"user": ["a", "b"], "item": [1, 2]})
    table.write_parquet(pair[0] / "t.parquet")
    table.write_parquet(pair[1] / "t.parquet", compression="uncompressed")
    assert compare_files(pair[0] / "t.parquet", pair[1] / "t.parquet", "t").verdict == "same values"
    table[:1].write_parquet(pair[1] / "t.parquet")
    assert compare_files(pair[0] / "t.parquet", pair[1] / "t.parquet", "t").verdict == "other bytes"
    (pair[1] / "t.parquet").write_bytes(b"PAR1 cut")
    assert compare_files(pair[0] / "t.parquet", pair[1] / "t.parquet", "t").verdict == "other bytes"


def test_how_far_weights_differ_is_said(pair: tuple[Path, Path]) -> None:
    for folder, value in zip(pair, (1.0, 1.25), strict=True):
        save_file({"w": np.full((2, 2), value, np.float32)}, folder / "weights.safetensors")
    found = compare_files(pair[0] / "weights.safetensors", pair[1] / "weights.safetensors", "w")
    assert (found.verdict, found.reason) == ("other bytes", "weights differ by up to 0.25")


def test_other_bytes_of_a_model_are_a_difference(pair: tuple[Path, Path]) -> None:
    for folder, content in zip(pair, (b"one", b"two"), strict=True):
        (folder / "model.onnx").write_bytes(content)
    assert compare_files(pair[0] / "model.onnx", pair[1] / "model.onnx", "m").verdict == "other bytes"


def test_a_csv_is_compared_by_its_columns(pair: tuple[Path, Path]) -> None:
    for folder, rows in zip(pair, ("a,0.3,0.7\n", "a,0.9,0.7\n"), strict=True):
        (folder / "latency.csv").write_text(f"contender,p50_ms,ndcg10\n{rows}")
    assert compare_files(pair[0] / "latency.csv", pair[1] / "latency.csv", "l").verdict == "measured"
    (pair[1] / "latency.csv").write_text("contender,p50_ms,ndcg10\na,0.9,0.8\n")
    assert compare_files(pair[0] / "latency.csv", pair[1] / "latency.csv", "l").figures == {"row 1.ndcg10": (0.7, 0.8)}


def test_the_words_of_a_model_card_have_to_stay(pair: tuple[Path, Path]) -> None:
    for folder, latency in zip(pair, ("0.025", "0.031"), strict=True):
        (folder / "card.md").write_text(f"| latency | {latency} |\n")
    assert compare_files(pair[0] / "card.md", pair[1] / "card.md", "c").verdict == "measured"
    (pair[1] / "card.md").write_text("| latency | none |\n")
    assert compare_files(pair[0] / "card.md", pair[1] / "card.md", "c").verdict == "other bytes"


def test_a_file_that_only_one_run_has_is_missing(pair: tuple[Path, Path]) -> None:
    (pair[0] / "a.bin").write_bytes(b"1")
    (pair[1] / "b.bin").write_bytes(b"1")
    found = compare_folders(*pair, "folder")
    assert [(one.path, one.verdict, one.reason) for one in found] == [
        ("folder/a.bin", "missing", "was not made again"),
        ("folder/b.bin", "missing", "was not made at first"),
    ]


def test_the_tolerance_is_the_wider_of_the_two() -> None:
    tolerance = Tolerance(0.02, 0.05)
    assert tolerance.holds(0.1, 0.12)
    assert not tolerance.holds(0.1, 0.1201)
    assert tolerance.holds(10.0, 10.5)
    assert not tolerance.holds(10.0, 10.51)
