"""Measure quality, bytes and speed of everything, write the report, and choose what ships."""

from __future__ import annotations

import os
import platform
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from rich.progress import Progress, SpinnerColumn, TimeRemainingColumn

from components.evaluation.contenders import contenders_of, reference_of
from components.evaluation.measuring import figures_of, fp32_bytes, judge_all, time_all
from components.evaluation.report import Findings, write_report
from components.evaluation.report_data import curve_table, strata_table
from components.evaluation.selection import check_figures, refusal, smallest, verdict
from components.networks.ensemble import member_folders
from components.provenance.lineage import network_lineage
from components.settings.evaluation import BudgetSettings, EvaluationSettings, GateSettings
from components.settings.threads import threads_per_network
from components.stages.workspace import Workspace, cost_since, run_stage
from components.storage.atomic import new_folder, read_json
from components.storage.checkpoints import ARCHITECTURE_FILE
from components.tasks.building import open_task

STAGES = ("train_teacher", "train_baseline", "soft_labels", "distill", "prune", "quantize")
IN_STRATA_PLOT = ("teacher", "baseline", "student", "pruned")


def work(workspace: Workspace) -> None:
    """Read every network and variant, measure them, and write ``report/``."""
    torch.set_num_threads(threads_per_network())
    started = time.monotonic()
    name = workspace.value("task")
    settings = workspace.settings("evaluation", EvaluationSettings)
    budget, gate = workspace.settings("budget", BudgetSettings), workspace.settings("gate", GateSettings)
    artifacts = workspace.artifacts
    task = open_task(name, artifacts / "dataset")
    check_figures(gate, task.measures)
    baselines = task.baselines(settings)
    contenders = contenders_of(artifacts, {name: baseline.title for name, baseline in baselines.items()})
    costs = {stage: read_json(artifacts / "metrics" / f"{stage}.json")["cost"] for stage in STAGES}
    members = len(member_folders(artifacts / "teacher"))

    print(f"evaluate: {len(contenders)} contenders on {task.held_out('test'):,} test points")
    with Progress(SpinnerColumn(), *Progress.get_default_columns()[:3], TimeRemainingColumn()) as progress:
        judged = judge_all(contenders, task, baselines, progress)
        timings = time_all(contenders, task, settings, progress)
    primary = task.primary.key
    figures = figures_of(contenders, judged, timings, costs=costs, settings=settings, members=members, primary=primary)

    weigh = partial(
        verdict,
        others=figures,
        fp32_bytes=fp32_bytes(reference_of(contenders)),
        primary=primary,
        budget=budget,
        gate=gate,
    )
    verdicts = [weigh(found.name, figures[found.name]) for found in contenders if found.shippable]
    chosen = smallest(verdicts)
    shown = [*IN_STRATA_PLOT, *([] if chosen is None else [chosen.name]), *list(baselines)[-1:]]
    teacher = judged["teacher"]
    strata = task.strata(teacher)
    findings = Findings(
        scenario=workspace.scenario,
        contenders=contenders,
        figures=figures,
        verdicts=verdicts,
        chosen=chosen,
        targets=len(teacher.users),
        users=len(set(teacher.users.tolist())),
        measures=task.measures,
        wording=task.wording(),
        strata=strata,
        curves=curve_table(artifacts / "curves"),
        by_stratum=strata_table({name: judged[name] for name in shown}, strata),
        costs={**costs, "evaluate": cost_since(started)},
        lineage=network_lineage(artifacts, task.dataset.record),
        data=task.dataset.record,
        architectures=_architectures(artifacts),
        evaluation=settings,
        budget=budget,
        gate=gate,
        machine=_machine(),
    )
    # DVC removes the outputs of a stage that fails: a report that refuses lies elsewhere, for the user to look at.
    refused = workspace.root / ".recstill" / "failed" / workspace.scenario / "report"
    shutil.rmtree(refused, ignore_errors=True)
    with new_folder(artifacts / "report" if chosen else refused) as folder:
        write_report(folder, findings)
    if chosen is None:
        raise refusal(verdicts, str(refused / "index.html"))
    print(f"evaluate: {chosen.name} ships; the report is {artifacts / 'report' / 'index.html'}")


def _architectures(artifacts: Path) -> dict[str, Any]:
    folders = {"teacher member": "teacher/member-0", "student": "student", "pruned": "pruned"}
    return {name: read_json(artifacts / folder / ARCHITECTURE_FILE) for name, folder in folders.items()}


def _machine() -> str:
    """In words: processor, cores, and the libraries whose speed was measured."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    processor = next(names, platform.processor() or platform.machine())
    libraries = f"torch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}"
    return f"{processor}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {libraries}"


if __name__ == "__main__":
    run_stage("evaluate", work)
