"""The report of two scenarios that answer together: one table, as ``metrics.json`` and as a page for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from components.storage.atomic import write_json

TEMPLATE = "two_stage.html.j2"
SHIPS = "two_stage"
"""The contender that is packaged."""


@dataclass(frozen=True)
class TwoStageFindings:
    """All that was found out about a pair.

    Attributes:
        name: Of the pair.
        tested: How it was judged.
        measures: ``key``, ``title``, ``group``, ``percent`` of each figure of quality, the primary first.
        titles: Of the contenders, by name, in the order of the table.
        figures: Of each contender: the measures, its difference to the teachers, ``bytes``, ``p50_ms``, ``p95_ms`` of
            the whole, and of each step where there are two.
        targets, users: How many test points, and of how many users.
        weights: NDCG on validation by weight, of the students.
        weight: The one that was chosen.
        candidates: Outcomes that are ranked.
        parts: SHA-256 of each part's ``package.json``.
    """

    name: str
    tested: str
    measures: list[dict[str, Any]]
    titles: Mapping[str, str]
    figures: Mapping[str, Mapping[str, Any]]
    targets: int
    users: int
    weights: Mapping[str, float]
    weight: float
    candidates: int
    parts: Mapping[str, str]


def write_two_stage_report(folder: Path, found: TwoStageFindings) -> None:
    """Write ``metrics.json``, ``choice.json`` and ``index.html`` into ``folder``, which must exist."""
    write_json(
        folder / "metrics.json",
        {
            "scenario": found.name,
            "tested": found.tested,
            "measures": found.measures,
            "contenders": {name: dict(figures) for name, figures in found.figures.items()},
            "untrained": [],
            "test_targets": found.targets,
            "test_users": found.users,
            "candidates": found.candidates,
            "weight": found.weight,
            "validation_by_weight": dict(found.weights),
        },
    )
    choice = {"chosen": SHIPS, "weight": found.weight, "figures": dict(found.figures[SHIPS])}
    write_json(folder / "choice.json", choice)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(TEMPLATE).render(found=found, ships=SHIPS)
    (folder / "index.html").write_text(page, encoding="utf-8")
