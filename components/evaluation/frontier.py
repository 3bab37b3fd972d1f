"""Points of quality, bytes and latency: which meet a budget and a gate, which is the best, and what stands in the way.

A **point** is one quantized variant of one recipe. What was not measured of it (the quality of a recipe that is much
too large to be trained) is missing, and meets no limit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from components.evaluation.selection import Requirement, Verdict, verdict
from components.settings.evaluation import BudgetSettings, GateSettings

_COSTS = ("budget.max_bytes", "budget.max_bytes_ratio", "budget.max_p95_ms", "budget.max_latency_ratio")


@dataclass(frozen=True)
class Reference:
    """What points are held against.

    Attributes:
        primary: Key of the measure that decides.
        title: Of that measure.
        quality: The whole teacher's.
        fp32_bytes: Of one teacher member's weights.
    """

    primary: str
    title: str
    quality: float
    fp32_bytes: int


@dataclass(frozen=True)
class Limits:
    """What a point may cost, and what it must be worth."""

    budget: BudgetSettings
    gate: GateSettings

    @property
    def limits_a_cost(self) -> bool:
        """Whether bytes or latency have a limit."""
        return any(value is not None for value in self.budget.model_dump().values())

    @property
    def goal(self) -> str:
        """What is sought within them, in words."""
        return "the best quality" if self.limits_a_cost else "the fewest bytes"


class Point(NamedTuple):
    """One variant of one recipe.

    Attributes:
        trial: Number of the trial that tried the recipe.
        form: Of the variant, such as ``int8_table8``.
        figures: ``bytes``, and as far as they were measured ``p50_ms``, ``p95_ms``, ``latency_ratio``, ``quality``,
            ``retention`` (of the whole teacher's quality), ``retention_low`` and ``retention_high``.
        verdict: How it stands to each limit.
    """

    trial: int
    form: str
    figures: Mapping[str, Any]
    verdict: Verdict

    @property
    def name(self) -> str:
        """For people: ``7.int8_table8``."""
        return f"{self.trial}.{self.form}"

    @property
    def bytes(self) -> int:
        """Of the file."""
        return int(self.figures["bytes"])

    @property
    def quality(self) -> float:
        """The primary measure on the validation points; nan where it was not measured."""
        return float(self.figures.get("quality", math.nan))

    @property
    def judged(self) -> bool:
        """Whether its quality was measured."""
        return "quality" in self.figures

    @property
    def excess(self) -> float:
        """By how much it misses the limits, each as a share of the limit, added up; 0 when it meets them all."""
        return sum(excess_of(missed) for missed in self.verdict.missed)


class Obstacle(NamedTuple):
    """A limit that no point meets together with all others.

    Attributes:
        requirement: With the figure of the point that comes nearest to it, of those that meet all others.
        point: That point.
        alone: Whether there is such a point: without this limit it would be the answer.
    """

    requirement: Requirement
    point: Point
    alone: bool


def point_of(trial: int, form: str, figures: Mapping[str, Any], reference: Reference, limits: Limits) -> Point:
    """Hold what was measured against the limits."""
    known = {
        "p95_ms": math.inf,
        "latency_ratio": math.inf,
        **figures,
        reference.primary: figures.get("quality", math.nan),
    }
    others = {"teacher": {reference.primary: reference.quality}, "baseline": {reference.primary: math.nan}}
    # The student without a teacher would be a second training a trial, and a trial measures the primary alone: the
    # graph holds what is chosen to these.
    gate = limits.gate.model_copy(update={"min_gain_over_baseline": None, "figures": {}})
    name = f"{trial}.{form}"
    held = verdict(
        name, known, others, reference.fp32_bytes, primary=reference.primary, budget=limits.budget, gate=gate
    )
    return Point(trial, form, figures, held)


def excess_of(requirement: Requirement) -> float:
    """By how much a figure misses its limit, as a share of it; negative when it is met. What is not known: 10."""
    if not math.isfinite(requirement.actual):
        return 10.0
    difference = requirement.actual - requirement.limit
    return (-difference if requirement.at_least else difference) / abs(requirement.limit)


def too_costly(point: Point, slack: float) -> bool:
    """Whether it costs more than ``1 + slack`` times what the budget allows. A latency not measured does not count."""
    costs = [held for held in point.verdict.requirements if held.setting in _COSTS and math.isfinite(held.actual)]
    return any(excess_of(held) > slack for held in costs)


def costs_met(point: Point) -> bool:
    """Whether it keeps all limits of the budget."""
    return all(held.met for held in point.verdict.requirements if held.setting in _COSTS)


def preference(point: Point, limits: Limits) -> tuple[float, ...]:
    """A sort key: the better of two points has the smaller one."""
    quality = -point.quality if point.judged else math.inf
    aim = (quality, float(point.bytes)) if limits.limits_a_cost else (float(point.bytes), quality)
    return (point.excess, *aim, float(point.trial))


def best_of(points: Iterable[Point], limits: Limits) -> Point | None:
    """The point to choose, of those that meet every limit; None: none does."""
    met = [point for point in points if point.judged and point.verdict.met]
    return min(met, key=lambda point: preference(point, limits), default=None)


def nearest_to(points: Iterable[Point], limits: Limits, count: int) -> list[Point]:
    """The points that miss the limits by the least, the nearest first, one a recipe."""
    found: dict[int, Point] = {}
    for point in sorted((point for point in points if point.judged), key=lambda point: preference(point, limits)):
        found.setdefault(point.trial, point)
    return list(found.values())[:count]


def obstacles(points: Sequence[Point]) -> list[Obstacle]:
    """Which limits are binding: those that no point meets together with all others.

    First what stands in the way alone. Where nothing does, every limit that the nearest point misses.
    """
    judged = [point for point in points if point.judged] or list(points)
    if not judged:
        return []
    alone = []
    for place in range(len(judged[0].verdict.requirements)):
        others = [
            point
            for point in judged
            if all(held.met for other, held in enumerate(point.verdict.requirements) if other != place)
        ]
        if others and not any(point.verdict.requirements[place].met for point in others):
            nearest = min(others, key=lambda point: excess_of(point.verdict.requirements[place]))
            alone.append(Obstacle(nearest.verdict.requirements[place], nearest, alone=True))
    if alone:
        return alone
    nearest = min(judged, key=lambda point: point.excess)
    return [Obstacle(missed, nearest, alone=False) for missed in nearest.verdict.missed]


def frontier(points: Iterable[Point], cost: str) -> list[Point]:
    """The points that no other one beats in quality without costing more, from the cheapest to the best.

    Args:
        points: Any; those whose quality or cost was not measured are left out.
        cost: Key of the figure that is the cost.
    """
    known = [point for point in points if point.judged and cost in point.figures]
    kept: list[Point] = []
    for point in sorted(known, key=lambda point: (point.figures[cost], -point.quality)):
        if not kept or point.quality > kept[-1].quality:
            kept.append(point)
    return kept
