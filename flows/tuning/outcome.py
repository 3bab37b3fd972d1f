"""What a search has found: the point to choose and what it changes, or which limit is in the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.errors import BudgetError
from components.evaluation.frontier import (
    Limits,
    Obstacle,
    Point,
    Reference,
    best_of,
    frontier,
    nearest_to,
    obstacles,
)
from components.evaluation.selection import LINEAGE_BYTES
from components.settings.scenario import Scenario
from components.settings.search_space import value_at, with_recipe
from flows.tuning.limits import Asked
from flows.tuning.patch import REMOVED
from flows.tuning.progress import point_words, recipe_words
from flows.tuning.study import Tried

_NEAREST = 5
_RELATIVE = {"budget.max_bytes": "budget.max_bytes_ratio", "budget.max_p95_ms": "budget.max_latency_ratio"}
_MORE = {
    "budget.max_bytes": "allow more bytes",
    "budget.max_bytes_ratio": "allow more bytes",
    "budget.max_p95_ms": "allow more time",
    "budget.max_latency_ratio": "allow more time",
    "gate.min_retention": "ask for less of the teacher's quality",
}


@dataclass(frozen=True)
class Outcome:
    """All that the report tells.

    Attributes:
        name: Of the scenario.
        scenario: As params.yaml has it.
        asked: The limits, and which of them the command line gave.
        reference: What points are held against.
        record: How many validation points and users that is of.
        points: Of all trials.
        tried: The trials.
        own: Number of the trial of the recipe as it is; None: it is not in the space.
        place: Where the study is kept.
    """

    name: str
    scenario: Scenario
    asked: Asked
    reference: Reference
    record: Mapping[str, Any]
    points: Sequence[Point]
    tried: Sequence[Tried]
    own: int | None
    place: str

    @property
    def limits(self) -> Limits:
        """That were to be met."""
        return self.asked.limits

    @property
    def best(self) -> Point | None:
        """The point to choose; None: no point meets all limits."""
        return best_of(self.points, self.limits)

    @property
    def nearest(self) -> list[Point]:
        """The points that miss the limits by the least."""
        return nearest_to(self.points, self.limits, _NEAREST)

    @property
    def obstacles(self) -> list[Obstacle]:
        """The limits that are in the way."""
        return obstacles(self.points)

    @property
    def counted(self) -> str:
        """What a limit on bytes counts beside a point's file; empty where there is none."""
        budget = self.limits.budget
        if budget.max_bytes is None and budget.max_bytes_ratio is None:
            return ""
        return f"A limit on bytes counts the model file and {LINEAGE_BYTES:,} bytes, which its lineage may add to it."

    def frontier(self, cost: str) -> list[Point]:
        """See :func:`components.evaluation.frontier.frontier`."""
        return frontier(self.points, cost)

    def recipe(self, point: Point) -> Mapping[str, Any]:
        """What the trial of a point tried."""
        return next(one.recipe for one in self.tried if one.number == point.trial)

    def value(self, key: str) -> Any:
        """What the scenario has at a parameter."""
        return value_at(self.scenario, key)

    def differences(self, point: Point) -> dict[str, Any]:
        """What a point has otherwise than the scenario."""
        return self.differing(self.recipe(point))

    def differing(self, recipe: Mapping[str, Any]) -> dict[str, Any]:
        """What a recipe has otherwise than the scenario."""
        return {key: value for key, value in recipe.items() if value != self.value(key)}

    def limits_set(self) -> dict[str, float]:
        """The limits that are set, by dotted names."""
        held = {
            **{f"budget.{key}": value for key, value in self.limits.budget.model_dump().items()},
            "gate.min_retention": self.limits.gate.min_retention,
        }
        return {key: value for key, value in held.items() if value is not None}

    def variants(self, point: Point) -> list[str]:
        """The forms to make: the point's, and the one that its recipe is fine-tuned for, which has to be among them."""
        aware = with_recipe(self.scenario, self.recipe(point)).pruning.quantization_aware
        return [point.form] if aware is None else list(dict.fromkeys([point.form, aware.form]))

    def changes(self, point: Point) -> dict[str, Any]:
        """What params.yaml needs so that the graph makes the point, and holds it to the limits that were given."""
        changed = {**self.differences(point), "quantization.variants": self.variants(point), **self.asked.given}
        removed = {_RELATIVE[key]: REMOVED for key in self.asked.given if key in _RELATIVE}
        return {**changed, **removed}

    def refusal(self, report: str) -> BudgetError:
        """The error to raise when no point meets all limits: which limit is in the way, and the nearest points.

        Args:
            report: Where the report lies that shows more.
        """
        title = self.reference.title
        lines = []
        for found in self.obstacles:
            held = found.requirement
            if found.alone:
                lines.append(f"    {held.setting}: of all that meets the other limits, the nearest has {held}")
            else:
                lines.append(f"    {held.setting}: the nearest point has {held}")
        lines.append("  The nearest points:")
        for point in self.nearest:
            missed = "; ".join(f"{one.setting} {one}" for one in point.verdict.missed)
            lines.append(f"    trial {point.trial}  {point_words(point, title)}; misses {missed}")
            if differences := self.differences(point):
                lines.append(f"      {recipe_words(differences)}")
        if not self.nearest:
            lines.append("    none was trained: everything that was tried is much too large or too slow")
        if self.counted:
            lines.append(f"  {self.counted}")
        binding = [found.requirement.setting for found in self.obstacles]
        ways = list(dict.fromkeys(_MORE.get(setting, f"relax {setting}") for setting in binding))
        return BudgetError(
            f"none of {sum(one.counts for one in self.tried)} recipes meets all limits; in the way "
            f"{'is' if len(binding) == 1 else 'are'} {' and '.join(binding) or 'all of them'}:\n" + "\n".join(lines),
            f"{' or '.join(ways).capitalize() or 'Relax a limit'}, give --trials more, or widen `tune.space` in "
            f"params.yaml. The report is {report}",
        )
