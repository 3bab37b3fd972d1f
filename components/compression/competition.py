"""Units of all parts compete for the cost of a request: how many of each part stay.

The cut of greatest importance within a cost is a knapsack (Shen et al., "Structural Pruning via Latency-Saliency
Knapsack", NeurIPS 2022, section 3). Here it is filled greedily: what has the least importance for the cost it saves
goes first (Dantzig, "Discrete-Variable Extremum Problems", 1957), which is at most one portion off the best.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from components.compression.cost import multiply_adds
from components.compression.groups import Group
from components.compression.importance import Scores
from components.compression.surgery import counts_that_may_stay, resized
from components.errors import SettingsError


class _Portion(NamedTuple):
    """Units of a part that go together.

    Attributes:
        density: Importance of a unit for each multiply-add that it costs.
        group: The part's name.
        left: Units of the part that stay without this portion.
    """

    density: float
    group: str
    left: int


def check_reachable(record: Mapping[str, Any], groups: Sequence[Group], share: float) -> None:
    """Refuse a share of the multiply-adds that is out of reach.

    Args:
        record: Architecture record of the student.
        groups: The parts that compete.
        share: Of its multiply-adds, that may stay.

    Raises:
        SettingsError: With all that can go gone, a request still needs more.
    """
    least = {group.name: counts_that_may_stay(group.kind, group.units)[0] for group in groups}
    reached = multiply_adds(resized(record, groups, least)) / multiply_adds(record)
    if reached > share:
        raise SettingsError(
            f"params.yaml: 'pruning.multiply_adds_share' is {share}, and with everything cut that can be cut a request "
            f"still needs {math.ceil(reached * 1000) / 1000} of the student's multiply-adds",
            "Raise it; a student of smaller dim, or of fewer blocks, needs less.",
        )


def counts_within(record: Mapping[str, Any], groups: Sequence[Group], scores: Scores, most: float) -> dict[str, int]:
    """How many units of each group stay, by its name, so that a request needs no more than ``most`` multiply-adds.

    Where that is out of reach, as few as may stay.

    Args:
        record: Architecture record of the network as it is.
        groups: The parts that compete.
        scores: Importance of their units, comparable between groups.
        most: Multiply-adds.
    """
    whole = {group.name: group.units for group in groups}
    portions = sorted(_portions(record, groups, scores), key=lambda portion: portion.density)

    def after(cut: int) -> dict[str, int]:
        return whole | {portion.group: portion.left for portion in portions[:cut]}

    # Every portion that goes lowers the cost: the first cut that is cheap enough.
    cuts = range(len(portions))
    return after(bisect_left(cuts, -most, key=lambda cut: -multiply_adds(resized(record, groups, after(cut)))))


def _portions(record: Mapping[str, Any], groups: Sequence[Group], scores: Scores) -> list[_Portion]:
    """What can go, of each group the least important units first."""
    whole = {group.name: group.units for group in groups}
    now, found = multiply_adds(record), []
    for group in groups:
        ascending = scores[group.name].sort().values
        counts = counts_that_may_stay(group.kind, group.units)[::-1]
        for more, less in pairwise(counts):
            if more == group.units:
                a_unit = (now - multiply_adds(resized(record, groups, whole | {group.name: less}))) / (more - less)
            mean = float(ascending[group.units - more : group.units - less].mean())
            found.append(_Portion(mean / max(a_unit, 1.0), group.name, less))
    return found
