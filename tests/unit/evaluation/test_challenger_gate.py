import json
from typing import Any

import numpy as np
import pytest

from components.evaluation.challenger_gate import Contest, Evidence, judge, stopped
from components.settings.evaluation import BudgetSettings, EvaluationSettings, GateSettings
from components.settings.retraining import ChallengerGateSettings

RANDOM = np.random.default_rng(3)
CHAMPION = RANDOM.random(600)
FIGURES = {"ndcg10": 0.09, "bytes": 9_000, "p95_ms": 0.2, "latency_ratio": 0.1}
CONTENDERS = {
    "teacher": {"ndcg10": 0.1, "parameters": 50_000},
    "baseline": {"ndcg10": 0.08},
    "popularity": {"ndcg10": 0.05},
    "item_knn": {"ndcg10": 0.07},
}
CHOICE: dict[str, Any] = {"chosen": "pruned.int8", "reason": "the smallest", "figures": FIGURES}
DATASET = {
    "digest": "d" * 64,
    "events": 10_000,
    "users": 600,
    "items": 80,
    "cold_targets": {"test": 6},
    "events_per_split": {"test": 600},
}
SOURCE = {"rows": 10_100, "rejected": {"null user": 101}, "first_event": "a", "last_event": "b"}


def evidence(**changes: Any) -> Evidence:
    metrics = {
        **{"contenders": CONTENDERS, "test_targets": 600, "test_users": 600},
        **{"measures": [{"key": "ndcg10", "title": "NDCG@10"}], "untrained": ["popularity", "item_knn"]},
    }
    whole = Evidence(DATASET, SOURCE, metrics, CHOICE, BudgetSettings(max_bytes_ratio=0.1), GateSettings())
    return whole._replace(gate=GateSettings(min_retention=0.8), **changes)


def contest(challenger: np.ndarray, champion: np.ndarray = CHAMPION) -> Contest:
    span = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z") if len(champion) else None
    return Contest(np.arange(len(champion)), challenger, champion, 6, 9, 4, span, 3)


def verdict(found: Contest | None, proof: Evidence | None = None, **settings: Any) -> dict[str, Any]:
    champion = None if found is None else found.version
    gate = ChallengerGateSettings(**settings)
    return judge(proof or evidence(), found, gate, EvaluationSettings(bootstrap_samples=400), champion=champion)


def failed(found: dict[str, Any]) -> list[str]:
    assert found["passed"] == (not found["reasons"])
    return [check["name"] for check in found["checks"] if not check["passed"]]


def test_an_equal_challenger_passes_and_the_record_holds_the_numbers() -> None:
    found = verdict(contest(CHAMPION.copy()))
    assert found["passed"] and found["kind"] == "champion" and found["dataset"] == "d" * 64
    assert found["difference"] == {"estimate": 0, "low": 0, "high": 0}
    assert found["champion"]["version"] == 3 and found["champion"]["cold_targets"] == 9
    assert found["holdout"]["targets"] == found["holdout"]["users"] == 600 and found["holdout"]["dropped_trained"] == 4
    assert found["data"]["rejected_share"] == pytest.approx(0.01)


@pytest.mark.parametrize(("shift", "passes"), [(+0.01, True), (-0.005, True), (-0.05, False)])
def test_worse_by_more_than_the_margin_is_refused(shift: float, passes: bool) -> None:
    found = verdict(contest(CHAMPION + shift))  # the margin is 2 % of 0.5
    assert found["passed"] == passes
    assert failed(found) == ([] if passes else ["quality"])
    assert passes or "of v3" in found["reasons"][0]


def test_what_is_not_sure_is_refused_though_the_estimate_is_good() -> None:
    noise = np.random.default_rng(5).normal(0, 0.6, len(CHAMPION))
    found = verdict(contest(CHAMPION + noise - noise.mean()))
    assert abs(found["difference"]["estimate"]) < 1e-6 and failed(found) == ["quality"]


def test_a_wider_margin_lets_it_pass() -> None:
    assert verdict(contest(CHAMPION - 0.05), margin=0.2)["passed"]


def test_too_few_targets_prove_nothing() -> None:
    assert failed(verdict(contest(CHAMPION[:50], CHAMPION[:50]))) == ["holdout.min_targets"]
    nothing = verdict(contest(CHAMPION[:0], CHAMPION[:0]))
    assert failed(nothing) == ["holdout.min_targets"] and nothing["difference"] is None


@pytest.mark.parametrize(
    ("setting", "value", "name"),
    [
        ("min_events", 20_000, "data.min_events"),
        ("max_rejected_share", 0.005, "data.max_rejected_share"),
        ("max_cold_item_share", 0.005, "data.max_cold_item_share"),
    ],
)
def test_bad_data_are_refused(setting: str, value: float, name: str) -> None:
    assert failed(verdict(contest(CHAMPION), **{setting: value})) == [name]
    assert failed(verdict(None, **{setting: value})) == [name]


def test_the_first_version_is_held_against_teacher_baselines_and_budget() -> None:
    found = verdict(None)
    assert found["passed"] and found["kind"] == "first" and found["champion"] is None
    names = {check["name"] for check in found["checks"]}
    assert {"gate.min_retention", "budget.max_bytes_ratio", "quality.popularity", "quality.item_knn"} <= names
    worse = evidence(choice={**CHOICE, "figures": {**FIGURES, "ndcg10": 0.04}})
    assert failed(verdict(None, worse)) == ["gate.min_retention", "quality.popularity"]


def test_when_no_variant_may_ship_the_reason_is_what_they_miss() -> None:
    missed = {"pruned.int8": {"met": False, "gate.min_retention": "0.7 < 0.8 (by 0.1)", "budget.max_bytes": "1 <= 2"}}
    nothing = {"chosen": None, "reason": "no variant meets the budget and the gate", "verdicts": missed}
    found = judge(
        evidence(choice=nothing), None, ChallengerGateSettings(), EvaluationSettings(), champion=2, drift={"psi": 0.1}
    )
    assert failed(found) == ["budget"] and found["kind"] == "champion" and found["champion"] == {"version": 2}
    assert "pruned.int8: gate.min_retention 0.7 < 0.8 (by 0.1)" in found["reasons"][0]
    assert "max_bytes" not in found["reasons"][0]


def test_data_that_moved_too_far_are_refused_untrained() -> None:
    found = stopped(DATASET, SOURCE, {"psi": 0.9}, 0.25, 3)
    assert failed(found) == ["drift.max_psi"] and found["drift"] == {"psi": 0.9} and found["champion"] == {"version": 3}


def test_the_same_inputs_give_the_same_bytes() -> None:
    one, other = (json.dumps(verdict(contest(CHAMPION - 0.004)), allow_nan=False) for _ in range(2))
    assert one == other


def test_many_targets_of_one_user_decide_nothing() -> None:
    alone = contest(CHAMPION)._replace(users=np.zeros(len(CHAMPION), dtype=np.int64))
    assert failed(verdict(alone)) == ["holdout.users"]
