"""What a run leaves on the pages of Prefect: result table, link to the report, gate verdict, versions.

All of it can be had elsewhere (the report, ``gate.json``, the registry); these are for whoever looks at the run. So a
call outside of a run does nothing, and a server that does not take an artifact ends no run: that is logged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.storage.atomic import read_json

# Shown of each contender, in this order; a figure that a contender has not got is left empty.
_DIFFERENCE = ("difference", "difference_low", "difference_high")
_COSTS = ("bytes", "p50_ms", "latency_ratio")


def publish_results(scenario: str, report: Path) -> None:
    """The result table of a scenario, and where its report with the plots lies.

    Args:
        scenario: Its name.
        report: The folder of ``metrics.json``, ``choice.json`` and ``index.html``; without them nothing is published.
    """
    if not _in_a_run() or not (report / "metrics.json").is_file():
        return
    from prefect.artifacts import create_link_artifact, create_table_artifact

    rows = results_table(report)
    _publish(
        lambda: create_table_artifact(
            table=rows,
            key=_key("results", scenario),
            description=f"{scenario}: test events, full ranking, seen items left out",
        )
    )
    page = (report / "index.html").resolve()
    if page.is_file():
        _publish(
            lambda: create_link_artifact(
                link=page.as_uri(),
                link_text=f"{scenario}: report and plots",
                key=_key("report", scenario),
                description=f"On the machine of the run: {page}",
            )
        )


def publish_verdict(name: str, verdict: Mapping[str, Any]) -> None:
    """The verdict of the gate on a challenger, with its numbers.

    Args:
        name: The model.
        verdict: The record of ``gate.json``.
    """
    if not _in_a_run():
        return
    from prefect.artifacts import create_markdown_artifact

    text = verdict_markdown(name, verdict)
    _publish(lambda: create_markdown_artifact(markdown=text, key=_key("gate", name)))


def publish_versions(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The registered versions of a model.

    Args:
        name: The model.
        rows: One a version, with the same keys: they head the columns.
    """
    if not _in_a_run():
        return
    from prefect.artifacts import create_table_artifact

    table = [dict(row) for row in rows]
    _publish(
        lambda: create_table_artifact(
            table=table, key=_key("versions", name), description=f"{name}: registered versions"
        )
    )


def publish_page(key: str, name: str, markdown: str) -> None:
    """A page of Markdown that belongs to a run."""
    if not _in_a_run():
        return
    from prefect.artifacts import create_markdown_artifact

    _publish(lambda: create_markdown_artifact(markdown=markdown, key=_key(key, name)))


def results_table(report: Path) -> list[dict[str, Any]]:
    """One row a contender of a report, the one that ships marked."""
    choice = read_json(report / "choice.json") if (report / "choice.json").is_file() else {}
    metrics = read_json(report / "metrics.json")
    contenders: Mapping[str, Mapping[str, Any]] = metrics["contenders"]
    first, *others = (measure["key"] for measure in metrics["measures"][:2])
    shown = (first, *_DIFFERENCE, *others, *_COSTS)
    return [
        {
            "contender": name,
            "ships": "yes" if name == choice.get("chosen") else "",
            **{figure: figures.get(figure, "") for figure in shown},
        }
        for name, figures in sorted(contenders.items(), key=lambda pair: -float(pair[1].get(first, 0.0)))
    ]


def verdict_markdown(name: str, verdict: Mapping[str, Any]) -> str:
    """A verdict as Markdown: passed or not and why, each check with limit and figure, challenger beside champion."""
    challenger, champion = verdict.get("challenger") or {}, verdict.get("champion") or {}
    lines = [f"# {name}: {'passed' if verdict.get('passed') else 'refused'}", ""]
    lines += [f"- {_cell(reason)}" for reason in verdict.get("reasons") or []]
    lines += ["", "| check | passed | limit | actual | |", "|---|---|---|---|---|"]
    lines += [
        f"| {_cell(check.get('name'))} | {'yes' if check.get('passed') else '**no**'} | {_cell(check.get('limit'))} "
        f"| {_cell(check.get('actual'))} | {_cell(check.get('text'))} |"
        for check in verdict.get("checks") or []
    ]
    shown = list(dict.fromkeys([*challenger, *champion]))
    if shown:
        lines += ["", "| | challenger | champion |", "|---|---|---|"]
        lines += [f"| {_cell(key)} | {_cell(challenger.get(key))} | {_cell(champion.get(key))} |" for key in shown]
    if difference := verdict.get("difference"):
        estimate, low, high = (_cell(difference.get(key)) for key in ("estimate", "low", "high"))
        lines += ["", f"Challenger - champion: {estimate} [{low}, {high}] (95 %)"]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    """A value in a cell of a Markdown table: one line, and no bar that would end the cell."""
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _key(kind: str, name: str) -> str:
    """A key as Prefect wants it: small letters, digits and dashes."""
    return f"{kind}-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}"


def _in_a_run() -> bool:
    from prefect.context import FlowRunContext, TaskRunContext

    return FlowRunContext.get() is not None or TaskRunContext.get() is not None


def _publish(create: Callable[[], Any]) -> None:
    from prefect.logging import get_run_logger

    try:
        create()
    except Exception as error:  # whatever the server has against it
        get_run_logger().warning("an artifact could not be published: %s", error)
