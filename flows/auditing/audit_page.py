"""The report of an audit as one page of HTML that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from flows.auditing.lineage_overview import overview
from flows.auditing.reporting import Report, VersionState
from flows.cache_tables import size

TEMPLATE = "audit.html.j2"


def html_page(report: Report) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["size"] = size
    graph = overview(report.versions)
    return environment.get_template(TEMPLATE).render(
        report=report,
        verified=report.verified,
        damage=report.verified.damaged,
        notes=[one for one in report.verified.findings if one.severity == "note"],
        models=_models(report.versions),
        # Made here, every text in it escaped.
        graph=Markup(graph) if graph else "",
    )


def _models(versions: Sequence[VersionState]) -> dict[str, list[VersionState]]:
    found: dict[str, list[VersionState]] = {}
    for one in versions:
        found.setdefault(one.name, []).append(one)
    return found
