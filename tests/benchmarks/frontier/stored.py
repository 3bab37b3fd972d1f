"""What was measured on a frontier, as it is kept in git: ``docs/frontier/<data>.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from components.storage.atomic import write_json
from tests.benchmarks.frontier.points import ROOT, TEACHER, Curve, Frontier, Judged, compared, mean_over_seeds

FOLDER = ROOT / "docs" / "frontier"
CURVES: dict[Curve, str] = {
    "teacher": "teacher",
    "without_teacher": "small, without a teacher",
    "distilled": "distilled",
    "quantized": "teacher, merely quantized",
    "distilled_quantized": "distilled, then quantized",
    "all": "distilled (and pruned), quantization-aware",
}


class Row(NamedTuple):
    """One contender over all seeds.

    Attributes:
        curve: On which it lies.
        point: The run.
        contender: Of the run.
        quality: Mean over the seeds of the primary measure, with its 95 % interval by bootstrap over the test users.
        retention: The same as a share of the teacher's, paired.
        seeds: The measure by seed.
        bytes: Of the weights or of the ONNX file.
        row_bytes: Of a row of the item table.
        latency_ratio: Median latency at batch 1 as a share of one teacher member's in torch eager, mean over the seeds.
        command: What ran for the first seed.
        commit: Of the code that ran.
    """

    curve: Curve
    point: str
    contender: str
    quality: tuple[float, float, float]
    retention: tuple[float, float, float]
    seeds: dict[str, float]
    bytes: int
    row_bytes: float
    latency_ratio: float
    command: str
    commit: str


class Stored(NamedTuple):
    """One data set.

    Attributes:
        data: Its name.
        measure: Title of the primary measure.
        test_users: How many the intervals are over.
        rows: In the order of the curves.
        note: What a reader has to know of how it was measured, beside the commands; nothing where they did all.
    """

    data: str
    measure: str
    test_users: int
    rows: list[Row]
    note: str = ""


def rows_of(frontier: Frontier, found: Sequence[Judged]) -> Stored:
    """From the judged points of all seeds to what is kept.

    Args:
        frontier: Whose.
        found: With its first point, which has the teacher.
    """
    teacher, users = mean_over_seeds(found, frontier.points[0].name, TEACHER)
    rows = []
    for point in frontier.points:
        mine = [one for one in found if one.point == point.name]
        for contender, curve in point.contenders.items() if mine else ():
            comparison = compared(mean_over_seeds(mine, point.name, contender)[0], teacher, users)
            level = compared(mean_over_seeds(mine, point.name, contender)[0], np.zeros_like(teacher), users).difference
            costs = [one.costs[contender] for one in mine]
            rows.append(
                Row(
                    curve,
                    point.name,
                    contender,
                    _rounded(level),
                    _rounded(comparison.retention),
                    {str(one.seed): round(float(one.values[contender].mean()), 4) for one in mine},
                    costs[0].bytes,
                    round(costs[0].row_bytes, 2),
                    round(float(np.mean([one.latency_ratio for one in costs])), 4),
                    mine[0].command,
                    mine[0].commit[:12],
                )
            )
    order = list(CURVES)
    rows.sort(key=lambda row: (order.index(row.curve), -row.bytes))
    return Stored(frontier.data, found[0].measure, len(np.unique(users)), rows)


def write_stored(stored: Stored) -> Path:
    """Keep it; gives the file."""
    path = FOLDER / f"{stored.data}.json"
    path.parent.mkdir(exist_ok=True)
    write_json(path, stored._asdict() | {"rows": [row._asdict() for row in stored.rows]})
    return path


def read_stored() -> list[Stored]:
    """All that is kept, by name."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found.append(Stored(**record | {"rows": [Row(**row) for row in record["rows"]]}))
    return found


def _rounded(interval: Sequence[float]) -> tuple[float, float, float]:
    estimate, low, high = (round(float(value), 4) for value in interval)
    return estimate, low, high
