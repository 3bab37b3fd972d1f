from __future__ import annotations

from typing import Any

import pytest

from components.evaluation.frontier import (
    Limits,
    Point,
    Reference,
    best_of,
    costs_met,
    frontier,
    nearest_to,
    obstacles,
    point_of,
    too_costly,
)
from components.settings.evaluation import BudgetSettings, GateSettings

REFERENCE = Reference("ndcg10", "NDCG@10", quality=0.1, fp32_bytes=1_000_000)
LIMITS = Limits(BudgetSettings(max_bytes=100_000, max_p95_ms=1.0), GateSettings(min_retention=0.98))
SMALL = Limits(BudgetSettings(), GateSettings(min_retention=0.98))


def point(trial: int, size: int, quality: float | None, p95: float | None = 0.5, limits: Limits = LIMITS) -> Point:
    figures: dict[str, Any] = {"bytes": size}
    if quality is not None:
        figures["quality"] = quality
    if p95 is not None:
        figures["p95_ms"] = p95
    return point_of(trial, "int8", figures, REFERENCE, limits)


def test_with_a_limit_on_a_cost_the_best_quality_within_it_is_chosen() -> None:
    points = [point(0, 50_000, 0.099), point(1, 90_000, 0.102), point(2, 120_000, 0.2), point(3, 20_000, 0.09)]
    best = best_of(points, LIMITS)
    assert best is not None and best.trial == 1 and LIMITS.goal == "the best quality"


def test_without_one_the_fewest_bytes_that_keep_the_quality_are_chosen() -> None:
    points = [point(trial, size, quality, limits=SMALL) for trial, size, quality in ((0, 50_000, 0.099), (1, 9, 0.05))]
    best = best_of([*points, point(2, 90_000, 0.12, limits=SMALL)], SMALL)
    assert best is not None and best.trial == 0 and SMALL.goal == "the fewest bytes"


def test_what_packaging_adds_counts_towards_the_bytes() -> None:
    assert best_of([point(0, 99_500, 0.1)], LIMITS) is None
    assert best_of([point(0, 98_976, 0.1)], LIMITS) is not None


def test_the_one_limit_in_the_way_is_named_with_the_nearest_figure() -> None:
    points = [point(0, 50_000, 0.09), point(1, 90_000, 0.095), point(2, 120_000, 0.2)]
    found = obstacles(points)
    assert [(one.requirement.setting, one.point.trial, one.alone) for one in found] == [
        ("budget.max_bytes", 2, True),
        ("gate.min_retention", 1, True),
    ]
    assert found[1].requirement.actual == pytest.approx(0.95)


def test_where_no_single_limit_is_in_the_way_the_nearest_points_are_named() -> None:
    points = [point(0, 200_000, 0.05), point(1, 120_000, 0.09)]
    assert [(one.requirement.setting, one.point.trial, one.alone) for one in obstacles(points)] == [
        ("budget.max_bytes", 1, False),
        ("gate.min_retention", 1, False),
    ]
    assert [near.trial for near in nearest_to(points, LIMITS, 5)] == [1, 0]


def test_what_was_not_trained_names_the_cost_that_kept_it_from_that() -> None:
    points = [point(0, 400_000, None, p95=None), point(1, 300_000, None)]
    assert best_of(points, LIMITS) is None and nearest_to(points, LIMITS, 5) == []
    found = obstacles(points)
    assert "budget.max_bytes" in {one.requirement.setting for one in found} and found[0].point.trial == 1
    assert obstacles([]) == []


def test_a_recipe_is_too_costly_by_what_was_measured_alone() -> None:
    assert too_costly(point(0, 160_000, None), slack=0.5) and not too_costly(point(0, 140_000, None), slack=0.5)
    assert too_costly(point(0, 1000, None, p95=2.0), slack=0.5)
    assert not too_costly(point(0, 1000, None, p95=None), slack=0.5)
    assert costs_met(point(0, 1000, 0.0)) and not costs_met(point(0, 140_000, 0.2))


def test_the_frontier_has_what_nothing_beats_from_the_cheapest_to_the_best() -> None:
    points = [point(0, 30, 0.1), point(1, 20, 0.1), point(2, 40, 0.2), point(3, 10, 0.05), point(4, 50, 0.15)]
    assert [one.trial for one in frontier([*points, point(5, 5, None)], "bytes")] == [3, 1, 2]
    assert frontier([point(0, 30, 0.1, p95=None)], "p95_ms") == []


def test_a_nearer_miss_is_less_of_a_miss() -> None:
    assert point(0, 50_000, 0.1).excess == 0
    assert 0 < point(0, 110_000, 0.1).excess < point(0, 150_000, 0.1).excess < point(0, 150_000, 0.05).excess
