import pytest

from components.errors import SettingsError
from components.evaluation.selection import LINEAGE_BYTES, Verdict, check_figures, refusal, smallest, verdict
from components.settings.base import validated
from components.settings.evaluation import Bounds, BudgetSettings, GateSettings
from components.tasks.contract import Measure

OTHERS = {"teacher": {"ndcg10": 0.10}, "baseline": {"ndcg10": 0.09}}
BUDGET = BudgetSettings(max_bytes=50_000, max_bytes_ratio=0.1, max_p95_ms=2.0, max_latency_ratio=0.3)
GATE = GateSettings(min_retention=0.95, min_gain_over_baseline=0.002)


def judged(name: str = "pruned.fp32", **changed: float) -> Verdict:
    figures = {"bytes": 40_000, "p95_ms": 1.0, "latency_ratio": 0.2, "ndcg10": 0.097} | changed
    return verdict(name, figures, OTHERS, 800_000, primary="ndcg10", budget=BUDGET, gate=GATE)


def test_a_variant_within_every_limit_may_ship() -> None:
    assert judged().met
    assert len(judged().requirements) == 6


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        ({"bytes": 50_000 - LINEAGE_BYTES + 1}, ["budget.max_bytes"]),
        ({"bytes": 80_000}, ["budget.max_bytes", "budget.max_bytes_ratio"]),
        ({"p95_ms": 2.1}, ["budget.max_p95_ms"]),
        ({"latency_ratio": 0.31}, ["budget.max_latency_ratio"]),
        ({"ndcg10": 0.0949}, ["gate.min_retention"]),
        ({"ndcg10": 0.0915}, ["gate.min_retention", "gate.min_gain_over_baseline"]),
        ({"ndcg10": float("nan")}, ["gate.min_retention", "gate.min_gain_over_baseline"]),
    ],
)
def test_each_limit_is_checked_on_its_own(changed: dict[str, float], missed: list[str]) -> None:
    found = judged(**changed)
    assert [requirement.setting for requirement in found.missed] == missed
    assert not found.met


def test_a_limit_that_is_not_set_is_not_checked() -> None:
    figures = {"bytes": 10**9, "p95_ms": 99.0, "latency_ratio": 9.0, "ndcg10": 0.2}
    found = verdict("any", figures, OTHERS, 800_000, primary="ndcg10", budget=BudgetSettings(), gate=GateSettings())
    assert [requirement.setting for requirement in found.requirements] == ["gate.min_retention"]
    assert found.met


def test_a_figure_has_to_lie_within_its_bounds() -> None:
    gate = GateSettings(min_retention=0.1, figures={"calibration": Bounds(min=0.99, max=1.01)})
    for value, missed in ((1.0, []), (0.97, ["min"]), (1.2, ["max"]), (float("nan"), ["min", "max"])):
        figures = {"bytes": 1, "p95_ms": 0.1, "latency_ratio": 0.1, "ndcg10": 0.1, "calibration": value}
        found = verdict("any", figures, OTHERS, 800_000, primary="ndcg10", budget=BudgetSettings(), gate=gate)
        assert [one.setting for one in found.missed] == [f"gate.figures.calibration.{side}" for side in missed]
    with pytest.raises(SettingsError, match=r"'calibration', which .* nearest known one is 'calibration_error'"):
        check_figures(gate, [Measure("auc", "AUC"), Measure("calibration_error", "calibration error")])


@pytest.mark.parametrize("bounds", [{}, {"min": 2.0, "max": 1.0}])
def test_bounds_that_bound_nothing_are_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=r"gate\.figures\.auc"):
        validated(GateSettings, {"figures": {"auc": bounds}}, "gate")


def test_a_teacher_that_finds_nothing_lets_nothing_pass() -> None:
    others = {"teacher": {"ndcg10": 0.0}, "baseline": {"ndcg10": 0.0}}
    figures = {"bytes": 1, "p95_ms": 0.1, "latency_ratio": 0.1, "ndcg10": 0.0}
    assert not verdict(
        "any", figures, others, 800_000, primary="ndcg10", budget=BudgetSettings(), gate=GateSettings()
    ).met


def test_the_smallest_that_meets_everything_ships() -> None:
    verdicts = [judged("c", bytes=30_000), judged("b", bytes=20_000), judged("a", bytes=10_000, ndcg10=0.05)]
    found = smallest(verdicts)
    assert found is not None and found.name == "b"
    assert smallest([judged("b"), judged("a")]).name == "a"  # type: ignore[union-attr]
    assert smallest([judged(ndcg10=0.0)]) is None


def test_the_refusal_says_what_each_variant_misses_and_by_how_much() -> None:
    error = str(refusal([judged("x", latency_ratio=0.45), judged("y", ndcg10=0.05)], "some/report/index.html"))
    assert "budget.max_latency_ratio 0.45 > 0.3 (by 0.15)" in error
    assert "gate.min_retention 0.5 < 0.95 (by 0.45)" in error
    assert error.index("  x ") < error.index("  y "), "the one that misses least comes first"
    assert "some/report/index.html" in error
