"""The report of one scenario: ``metrics.json``, ``choice.json``, the plots' data, and one page for people.

The page is a single file: styles and charts are inside, nothing is fetched, so that it can be opened from a disk,
attached to a mail, and read in ten years.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jinja2
import polars as pl

from components.evaluation import formats
from components.evaluation.contenders import Contender, reference_of
from components.evaluation.measuring import fp32_bytes
from components.evaluation.plots import cost_plot, curves_plot, strata_plot
from components.evaluation.report_data import figure_table
from components.evaluation.selection import Verdict
from components.settings.evaluation import BudgetSettings, EvaluationSettings, GateSettings
from components.storage.atomic import write_json
from components.tasks.contract import Measure, Strata, Wording

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Findings:
    """All that was found out about one scenario.

    Attributes:
        scenario: Its name.
        contenders: What was compared, in the order of the table.
        figures: Of each contender.
        verdicts: Of each variant that could ship.
        chosen: Which one does; None: none may.
        targets, users: How many test points, and of how many users.
        measures: What quality is measured by, the primary first.
        wording: How to speak of the task.
        strata: Groups of test points.
        curves: Of :func:`components.evaluation.report_data.curve_table`.
        by_stratum: Of :func:`components.evaluation.report_data.strata_table`.
        costs: ``cost`` of each stage.
        lineage: Digests by what they identify.
        data: ``dataset.json``.
        architectures: Record of each network that was trained.
        evaluation, budget, gate: The settings.
        machine: What the times were measured on.
    """

    scenario: str
    contenders: Sequence[Contender]
    figures: Mapping[str, Mapping[str, Any]]
    verdicts: Sequence[Verdict]
    chosen: Verdict | None
    targets: int
    users: int
    measures: Sequence[Measure]
    wording: Wording
    strata: Strata
    curves: pl.DataFrame
    by_stratum: pl.DataFrame
    costs: Mapping[str, Mapping[str, float]]
    lineage: Mapping[str, Any]
    data: Mapping[str, Any]
    architectures: Mapping[str, Any]
    evaluation: EvaluationSettings
    budget: BudgetSettings
    gate: GateSettings
    machine: str

    @cached_property
    def named(self) -> dict[str, Contender]:
        """Contenders by name."""
        return {contender.name: contender for contender in self.contenders}

    @cached_property
    def reference(self) -> Contender:
        """One member of the teacher in torch."""
        return reference_of(self.contenders)

    @property
    def primary(self) -> Measure:
        """The measure that decides."""
        return self.measures[0]

    @property
    def quality(self) -> str:
        """The primary measure in words."""
        return f"{self.primary.title}, {self.primary.group}" if self.primary.group else self.primary.title

    @cached_property
    def groups(self) -> dict[str, list[Measure]]:
        """The measures by the head of their columns."""
        found: dict[str, list[Measure]] = {}
        for measure in self.measures:
            found.setdefault(measure.group, []).append(measure)
        return found

    @property
    def floor(self) -> float:
        """The least quality that passes the gate."""
        limits = [self.gate.min_retention * self.figures["teacher"][self.primary.key]]
        if self.gate.min_gain_over_baseline is not None:
            limits.append(self.gate.min_gain_over_baseline + self.figures["baseline"][self.primary.key])
        return max(limits)

    def limit_of_bytes(self) -> float | None:
        """The most bytes that the budget allows; None: any."""
        budget = self.budget
        ratio = None if budget.max_bytes_ratio is None else budget.max_bytes_ratio * fp32_bytes(self.reference)
        return min((limit for limit in (budget.max_bytes, ratio) if limit is not None), default=None)

    def limit_of_latency(self) -> float | None:
        """The median latency in milliseconds that the budget's ratio allows; None: any."""
        ratio = self.budget.max_latency_ratio
        return None if ratio is None else ratio * float(self.figures[self.reference.name]["p50_ms"])


def write_report(folder: Path, findings: Findings) -> None:
    """Write everything into ``folder``, which must exist."""
    plots = folder / "plots"
    plots.mkdir()
    tables = {
        "bytes": figure_table(findings.contenders, findings.figures, "bytes", findings.primary.key),
        "latency": figure_table(findings.contenders, findings.figures, "p50_ms", findings.primary.key),
        "curves": findings.curves,
        "strata": findings.by_stratum,
    }
    for name, table in tables.items():
        table.write_csv(plots / f"{name}.csv")
    write_json(folder / "metrics.json", metrics_of(findings))
    write_json(folder / "lineage.json", findings.lineage)
    write_json(folder / "choice.json", choice_of(findings))
    (folder / "index.html").write_text(page_of(findings, tables), encoding="utf-8")


def metrics_of(findings: Findings) -> dict[str, Any]:
    """What ``dvc metrics show`` prints: the headline first, then every contender's figures."""
    figures = findings.figures
    key = findings.primary.key
    teacher, baseline = figures["teacher"][key], figures["baseline"][key]
    record: dict[str, Any] = {
        f"teacher_{key}": teacher,
        f"baseline_{key}": baseline,
        "student_gain": round(figures["student"][key] - baseline, 6),
        "test_targets": findings.targets,
        "test_users": findings.users,
        "measures": [measure._asdict() for measure in findings.measures],
        "untrained": [found.name for found in findings.contenders if found.family == "untrained"],
        "tested": findings.wording.tested,
        "contenders": figures,
        "cost": findings.costs.get("evaluate", {}),
    }
    if findings.chosen is not None:
        shipped = figures[findings.chosen.name]
        record |= {f"shipped_{name}": shipped[name] for name in (key, "bytes", "bytes_ratio", "latency_ratio")}
        record |= {f"shipped_{name}": shipped[name] for name in ("p50_ms", "p95_ms", "retention") if name in shipped}
        record["shipped_gain"] = round(shipped[key] - baseline, 6)
    return record


def choice_of(findings: Findings) -> dict[str, Any]:
    """``choice.json``: what ships and why, or that nothing does."""
    chosen = findings.chosen
    verdicts = {
        verdict.name: {
            "met": verdict.met,
            **{requirement.setting: str(requirement) for requirement in verdict.requirements},
        }
        for verdict in findings.verdicts
    }
    if chosen is None:
        return {"chosen": None, "reason": "no variant meets the budget and the gate", "verdicts": verdicts}
    contender = findings.named[chosen.name]
    assert contender.path is not None and contender.variant is not None
    return {
        "chosen": chosen.name,
        "reason": f"the smallest of {sum(verdict.met for verdict in findings.verdicts)} variants that meet the budget "
        f"and the gate, of {len(findings.verdicts)} that could ship",
        "file": contender.path.name,
        "sha256": contender.digest,
        "bytes": contender.bytes,
        "made_from": contender.family,
        "from_digest": contender.variant["from_digest"],
        "max_length": contender.max_length,
        "variant": contender.variant,
        "figures": findings.figures[chosen.name],
        "verdicts": verdicts,
    }


def page_of(findings: Findings, tables: Mapping[str, pl.DataFrame]) -> str:
    """``index.html``."""
    shipped = None if findings.chosen is None else findings.chosen.name
    plot = partial(cost_plot, quality=findings.quality, shipped=shipped, floor=findings.floor)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(formats.FILTERS)
    return environment.get_template(TEMPLATE).render(
        found=findings,
        shipped=shipped,
        reference=findings.reference,
        steps=_steps(findings),
        settings=_settings(findings),
        bytes_plot=plot(tables["bytes"], "bytes", "bytes on disk", limit=findings.limit_of_bytes()),
        latency_plot=plot(
            tables["latency"], "p50_ms", "median latency at batch 1, milliseconds", limit=findings.limit_of_latency()
        ),
        curves_plot=curves_plot(findings.curves, findings.primary.title) if len(findings.curves) else None,
        strata_plot=strata_plot(
            findings.by_stratum,
            {name: contender.family for name, contender in findings.named.items()},
            shipped,
            quality=findings.quality,
            axis=findings.strata.axis,
        ),
    )


def _steps(findings: Findings) -> list[dict[str, Any]]:
    """The pipeline, step by step: each network with what the step changed."""
    last = findings.chosen or min(
        findings.verdicts, key=lambda verdict: (len(verdict.missed), verdict.bytes), default=None
    )
    names = ["teacher", "student", "pruned"] + ([] if last is None else [last.name])
    if last is not None and findings.named[last.name].family == "student":
        names.remove("pruned")  # what ships was never pruned
    verbs = {"teacher": "trained", "student": "distilled", "pruned": "pruned"}
    steps, before = [], None
    for name in names:
        steps.append(
            {
                "name": name,
                "title": findings.named[name].title,
                "verb": verbs.get(name, "exported, quantized"),
                "figures": findings.figures[name],
                "before": before,
            }
        )
        before = findings.figures[name]
    return steps


def _settings(findings: Findings) -> dict[str, Any]:
    """Dotted keys and values of what was set, as far as this stage knows it."""
    sections = {
        "evaluation": findings.evaluation.model_dump(mode="json"),
        "budget": findings.budget.model_dump(mode="json"),
        "gate": findings.gate.model_dump(mode="json"),
        **findings.architectures,
    }
    return {f"{section}.{key}": value for section, values in sections.items() for key, value in values.items()}
