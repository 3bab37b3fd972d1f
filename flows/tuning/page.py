"""The report of a search: one page of HTML that needs nothing else, and the same figures as a table for programs."""

from __future__ import annotations

import csv
import os
import platform
from pathlib import Path
from typing import Any

import jinja2

from components.evaluation import formats
from components.evaluation.frontier import Point
from components.evaluation.frontier_plot import frontier_plot
from components.storage.atomic import new_folder
from flows.tuning.outcome import Outcome
from flows.tuning.progress import recipe_words, value_words

TEMPLATE = "tuning.html.j2"
_FIGURES = ("bytes", "p50_ms", "p95_ms", "latency_ratio", "quality", "retention", "retention_low", "retention_high")


def write_report(folder: Path, outcome: Outcome) -> None:
    """Write ``index.html`` and ``points.csv`` into a folder, which takes the place of an older one.

    Raises:
        StorageError: It cannot be written.
    """
    with new_folder(folder) as temporary:
        (temporary / "index.html").write_text(_page(outcome), encoding="utf-8")
        with (temporary / "points.csv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["trial", "form", *_FIGURES, "meets_all_limits", "recipe"])
            for point in outcome.points:
                figures = [point.figures.get(key, "") for key in _FIGURES]
                recipe = recipe_words(outcome.recipe(point))
                writer.writerow([point.trial, point.form, *figures, point.judged and point.verdict.met, recipe])


def _page(outcome: Outcome) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(formats.FILTERS, words=value_words, recipe=recipe_words)
    budget, reference = outcome.limits.budget, outcome.reference
    limits = [
        limit
        for limit in (
            budget.max_bytes,
            None if budget.max_bytes_ratio is None else budget.max_bytes_ratio * reference.fp32_bytes,
        )
        if limit is not None
    ]
    shared: dict[str, Any] = {
        "quality": reference.title,
        "teacher": reference.quality,
        "floor": outcome.limits.gate.min_retention * reference.quality,
        "chosen": outcome.best,
        "own": outcome.own,
    }
    return environment.get_template(TEMPLATE).render(
        found=outcome,
        best=outcome.best,
        plots=[
            (
                "Quality against bytes",
                frontier_plot(outcome.points, "bytes", "bytes on disk", limit=min(limits, default=None), **shared),
            ),
            (
                "Quality against latency",
                frontier_plot(
                    outcome.points,
                    "p95_ms",
                    "95th percentile of the latency at batch 1, milliseconds",
                    limit=budget.max_p95_ms,
                    **shared,
                ),
            ),
        ],
        rows=_rows(outcome),
        held=(outcome.best or next(iter(outcome.nearest), None)),
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        counts={
            state: sum(one.state == state for one in outcome.tried)
            for state in ("complete", "pruned", "costly", "failed")
        },
    )


def _rows(outcome: Outcome) -> list[Point]:
    """The frontiers over bytes and over latency, and what was chosen, from the smallest to the largest."""
    chosen = [] if outcome.best is None else [outcome.best]
    points = [*outcome.frontier("bytes"), *outcome.frontier("p95_ms"), *outcome.nearest, *chosen]
    if outcome.own is not None:
        points += [point for point in outcome.points if point.trial == outcome.own]
    unique = {(point.trial, point.form): point for point in points if point.judged}
    return sorted(unique.values(), key=lambda point: (point.bytes, -point.quality))
