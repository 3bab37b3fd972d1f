"""Which variant ships: the smallest one that meets the scenario's budget and gate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from components.errors import BudgetError, SettingsError
from components.settings.base import nearest
from components.settings.evaluation import BudgetSettings, GateSettings
from components.tasks.contract import Measure

LINEAGE_BYTES = 1024
"""What packaging may add to the model file: the lineage in its metadata counts towards the budget."""


class Requirement(NamedTuple):
    """One limit of the budget or the gate, and how a variant stands to it.

    Attributes:
        setting: Key in params.yaml.
        limit: What it allows at most, or asks for at least (``at_least``).
        actual: What was measured.
    """

    setting: str
    limit: float
    actual: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Is the limit kept? What could not be measured does not meet it."""
        return self.actual >= self.limit if self.at_least else self.actual <= self.limit

    def __str__(self) -> str:
        sign = (">=" if self.at_least else "<=") if self.met else ("<" if self.at_least else ">")
        text = f"{_number(self.actual)} {sign} {_number(self.limit)}"
        # By how much, in the unit of the setting: a share of the limit would mean nothing where the limit is 0.
        return text if self.met else f"{text} (by {_number(abs(self.actual - self.limit))})"


class Verdict(NamedTuple):
    """A variant, and how it stands to every limit that is set."""

    name: str
    bytes: int
    requirements: tuple[Requirement, ...]

    @property
    def met(self) -> bool:
        """Does it meet all of them?"""
        return all(requirement.met for requirement in self.requirements)

    @property
    def missed(self) -> list[Requirement]:
        """Those that it does not meet."""
        return [requirement for requirement in self.requirements if not requirement.met]


def check_figures(gate: GateSettings, measures: Sequence[Measure]) -> None:
    """Refuse bounds of what a task does not measure.

    Args:
        gate: What is required.
        measures: Of the task.

    Raises:
        SettingsError: A figure has another name; tells the nearest one.
    """
    known = [measure.key for measure in measures]
    for key in gate.figures:
        if key not in known:
            raise SettingsError(
                f"gate.figures names {key!r}, which the task does not measure; {nearest(key, known)}",
                "Correct `gate.figures` in params.yaml.",
            )


def verdict(
    name: str,
    figures: Mapping[str, Any],
    others: Mapping[str, Mapping[str, Any]],
    fp32_bytes: int,
    *,
    primary: str,
    budget: BudgetSettings,
    gate: GateSettings,
) -> Verdict:
    """Hold one variant against the budget and the gate.

    Args:
        name: Of the variant.
        figures: What was measured of it: ``bytes``, ``p95_ms``, ``latency_ratio``, the primary, and what ``gate``
            bounds.
        others: The primary of ``teacher`` and ``baseline``.
        fp32_bytes: Of one teacher member's weights.
        primary: Key of the measure that decides.
        budget: What it may cost.
        gate: What it must be worth.
    """
    size = figures["bytes"] + LINEAGE_BYTES
    own, teacher, baseline = figures[primary], others["teacher"][primary], others["baseline"][primary]
    limits: list[tuple[str, float | None, float, bool]] = [
        ("budget.max_bytes", budget.max_bytes, size, False),
        ("budget.max_bytes_ratio", budget.max_bytes_ratio, size / fp32_bytes, False),
        ("budget.max_p95_ms", budget.max_p95_ms, figures["p95_ms"], False),
        ("budget.max_latency_ratio", budget.max_latency_ratio, figures["latency_ratio"], False),
        ("gate.min_retention", gate.min_retention, own / teacher if teacher else float("nan"), True),
        ("gate.min_gain_over_baseline", gate.min_gain_over_baseline, own - baseline, True),
    ]
    for key, bounds in gate.figures.items():
        found = float(figures.get(key, math.nan))
        limits.append((f"gate.figures.{key}.min", bounds.min, found, True))
        limits.append((f"gate.figures.{key}.max", bounds.max, found, False))
    return Verdict(
        name,
        figures["bytes"],
        tuple(Requirement(key, limit, actual, least) for key, limit, actual, least in limits if limit is not None),
    )


def smallest(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The variant of fewest bytes that meets everything, by name where two are equally small; None: there is none."""
    return min((found for found in verdicts if found.met), key=lambda found: (found.bytes, found.name), default=None)


def refusal(verdicts: Sequence[Verdict], report: str) -> BudgetError:
    """The error to raise when nothing may ship: what each variant misses, and by how much.

    Args:
        verdicts: Of all variants.
        report: Where the report lies that shows more.
    """
    if not verdicts:
        return BudgetError("no variant was made from the student", "Name some under `quantization.variants`.")
    width = max(len(found.name) for found in verdicts)
    lines = [
        f"    {found.name:<{width}}  {found.bytes:>12,} bytes  "
        + "; ".join(f"{miss.setting} {miss}" for miss in found.missed)
        for found in sorted(verdicts, key=lambda found: (len(found.missed), found.bytes, found.name))
    ]
    return BudgetError(
        "no variant meets the scenario's budget and gate. What each one misses:\n" + "\n".join(lines),
        f"Give the student more, compress it less, or relax `budget` and `gate`. The full report is in {report}",
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
