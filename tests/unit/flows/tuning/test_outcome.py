from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from components.evaluation.frontier import Reference, point_of
from components.settings.quantization import GraphForm
from flows.params import read_params
from flows.tuning.limits import limits_of
from flows.tuning.outcome import Outcome
from flows.tuning.page import write_report
from flows.tuning.patch import REMOVED, patched
from flows.tuning.study import Tried
from tests.stage_modules import ROOT

REFERENCE = Reference("ndcg10", "NDCG@10", quality=0.12, fp32_bytes=800_000)
LOSSES = {"losses": [{"kind": "cross_entropy", "weight": 1.0}, {"kind": "correlation", "weight": 1.0}]}
OWN = {"student.network.dim": 32, "distillation": {"lambda_hard": 0.2, "lambda_soft": 0.8, "temperature": 1.0}}


def figures(size: int, quality: float) -> dict[str, Any]:
    share = quality / REFERENCE.quality
    return {
        **{"bytes": size, "p50_ms": 0.2, "p95_ms": 0.3, "latency_ratio": 0.4, "quality": quality},
        **{"retention": share, "retention_low": share - 0.02, "retention_high": share + 0.02},
    }


def tried(number: int, recipe: dict[str, Any], state: str = "complete", **points: dict[str, Any]) -> Tried:
    return Tried(number, recipe, f"{number:08x}", state, points, "", 12.0, {1: 0.05, 2: 0.1})


TRIALS = (
    tried(0, OWN, fp32=figures(250_000, 0.121), int4=figures(38_000, 0.118)),
    tried(
        1, {"student.network.dim": 16, "distillation": LOSSES}, fp32=figures(120_000, 0.119), int4=figures(20_000, 0.11)
    ),
    tried(2, {**OWN, "student.network.dim": 24}, "pruned", int4={"bytes": 29_000, "p95_ms": 0.3}),
    tried(3, {**OWN, "student.network.dim": 64}, "costly", int4={"bytes": 90_000}),
)


def outcome(max_bytes: str, min_retention: str, trials: tuple[Tried, ...] = TRIALS) -> Outcome:
    scenario = read_params(ROOT).scenarios["movielens"]
    asked = limits_of(scenario, max_bytes, "1ms", min_retention)
    points = [
        point_of(one.number, form, measured, REFERENCE, asked.limits)
        for one in trials
        for form, measured in one.points.items()
    ]
    record = {"points": 943, "users": 943, "tested": "full ranking"}
    return Outcome("movielens", scenario, asked, REFERENCE, record, points, trials, 0, "journal.log")


def test_the_point_to_choose_and_what_it_changes() -> None:
    found = outcome("150kB", "0.98")
    assert found.best is not None and found.best.name == "1.fp32"
    assert found.changes(found.best) == {
        "student.network.dim": 16,
        "distillation": LOSSES,
        "quantization.variants": ["fp32"],
        "budget.max_bytes": 150_000,
        "budget.max_p95_ms": 1.0,
        "gate.min_retention": 0.98,
        "budget.max_bytes_ratio": REMOVED,
        "budget.max_latency_ratio": REMOVED,
    }


@pytest.mark.parametrize("form", get_args(GraphForm))
def test_a_recipe_that_is_fine_tuned_for_a_form_can_be_written_whichever_form_wins(form: str) -> None:
    scenario = read_params(ROOT).scenarios["movielens_1m"]
    asked = limits_of(scenario, "9MB", None, "0.9")
    point = point_of(0, form, figures(120_000, 0.119), REFERENCE, asked.limits)
    recipe = {"student.optimization.learning_rate": 0.003, "pruning.quantization_aware": {"form": "int4_table4"}}
    found = Outcome(
        *("movielens_1m", scenario, asked, REFERENCE, {}, [point], [tried(0, recipe, **{form: point.figures})]),
        own=None,
        place="journal.log",
    )
    after = patched((ROOT / "params.yaml").read_text(), "movielens_1m", found.changes(point))
    quantization = yaml.safe_load(after)["scenarios"]["movielens_1m"]["quantization"]
    assert quantization["variants"] == found.variants(point) == list(dict.fromkeys([form, "int4_table4"]))


def test_without_a_feasible_point_the_limits_in_the_way_and_the_nearest_points_are_told() -> None:
    found = outcome("40kB", "0.99")
    assert found.best is None
    told = str(found.refusal("report/index.html"))
    assert "none of 4 recipes" in told and "budget.max_bytes and gate.min_retention" in told
    assert "the nearest has 0.9833 < 0.99" in told, "what keeps within the bytes"
    assert "121,024 > 40,000" in told, "what keeps the quality"
    assert "trial 0  int4" in told and "network.dim 16" in told and "report/index.html" in told
    assert "allow more bytes or ask for less" in told.lower()
    assert "1,024 bytes, which its lineage may add" in told, "or 121,024 would be nobody's bytes"


def test_where_nothing_was_trained_the_cost_is_told() -> None:
    told = str(outcome("10kB", "0.9", TRIALS[3:]).refusal("page"))
    assert "budget.max_bytes" in told and "91,024 > 10,000" in told and "none was trained" in told


@pytest.mark.parametrize(("max_bytes", "says"), [("150kB", "Trial 1, fp32"), ("10kB", "No recipe meets all limits")])
def test_the_report_is_one_page_with_both_frontiers(tmp_path: Path, max_bytes: str, says: str) -> None:
    write_report(tmp_path / "report", outcome(max_bytes, "0.98"))
    page = (tmp_path / "report/index.html").read_text()
    assert says in page and page.count("<svg") == 2 and page.count("<tr") > 10
    assert "1,024 bytes, which its lineage may add" in page
    assert "correlation x 1" in page and "http://" not in page.replace("http://www.w3.org", "")
    with (tmp_path / "report/points.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 6 and rows[5]["quality"] == "" and rows[5]["meets_all_limits"] == "False"
