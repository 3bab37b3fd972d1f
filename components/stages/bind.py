"""Bind two scenarios' packages into one that retrieves and then ranks, and measure them together."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from components.errors import DataError, SettingsError
from components.evaluation.two_stage_report import SHIPS, TwoStageFindings, write_two_stage_report
from components.provenance.lineage import commit_of
from components.serving.binding import Bound, write_bound
from components.serving.package_folder import RECORD, SIGNATURE
from components.serving.packaging import GOLDEN_REQUESTS
from components.serving.predictor import Predictor
from components.serving.two_stage import RANKING, RETRIEVAL, TwoStage
from components.serving.two_stage_measuring import ONLY, asked, by_weight, figures_of, timed
from components.settings.threads import threads_per_network
from components.stages.asked_teacher import AskedTeacher
from components.stages.workspace import Workspace, run_stage
from components.storage.atomic import new_folder, read_json
from components.storage.digests import file_digest
from components.tasks.beyond import HeldOutOutcomes
from components.tasks.building import open_task
from components.tasks.contract import Split, Task

TITLES = {
    "retrieval": "retrieval only",
    "ranking_alone": "two stages, ordered by the ranking alone",
    SHIPS: "two stages: ships",
    "teacher_retrieval": "teacher, retrieval only",
    "teacher": "teacher and teacher",
}


def work(workspace: Workspace) -> None:
    """Write ``package/`` and ``report/``."""
    torch.set_num_threads(threads_per_network())
    started = time.monotonic()
    settings = workspace.two_stage()
    scenarios = {RETRIEVAL: settings.retrieval, RANKING: settings.ranking}
    folders = {role: Workspace(scenario, workspace.root).artifacts for role, scenario in scenarios.items()}
    packages = {role: folder / "package" for role, folder in folders.items()}
    asked_as = {role: read_json(path / SIGNATURE) for role, path in packages.items()}
    tasks = {
        role: open_task(str(one["task"]), folders[role] / "dataset", int(one["max_length"]))
        for role, one in asked_as.items()
    }
    tests, validation = (_held_out(split, tasks, scenarios) for split in ("test", "validation"))
    print(f"bind: {len(tests.users):,} test targets, later than what either model has learned from", flush=True)

    predictors = {role: Predictor(path) for role, path in packages.items()}
    taught = {role: AskedTeacher(folder) for role, folder in folders.items()}
    sizes = [{role: int(predictors[role].record["model_bytes"]) for role in packages}]
    sizes.append({role: taught[role].bytes for role in packages})
    ways: dict[str, Any] = {}
    weights = []
    for pair, names in ((predictors, ("retrieval", SHIPS)), (taught, ("teacher_retrieval", "teacher"))):
        stages = TwoStage(pair[RETRIEVAL], pair[RANKING], settings.candidates, settings.weights[0])
        # What the retrieval is worth alone, at weight 0, is for the reader to compare with.
        weights.append(by_weight(asked(stages, validation), (0.0, *settings.weights)))
        stages.weight = max(settings.weights, key=lambda weight: weights[-1][weight])
        said = asked(stages, tests)
        ways |= {names[0]: (said, 0.0), names[1]: (said, stages.weight)}
    ways["ranking_alone"] = (ways[SHIPS][0], ONLY)
    primary = tasks[RETRIEVAL].primary
    figures = figures_of(ways, "teacher", primary.key)
    for bytes_of, alone, both in zip(sizes, ("retrieval", "teacher_retrieval"), (SHIPS, "teacher"), strict=True):
        said = ways[both][0]
        times = timed(said.stages, said.questions, settings.requests)
        figures[both] |= {"bytes": sum(bytes_of.values()), **times}
        first = {key: value for key, value in times.items() if key.startswith("retrieval_")}
        whole = {key.removeprefix("retrieval_"): value for key, value in first.items()}
        none = {"ranking_p50_ms": None, "ranking_p95_ms": None}
        figures[alone] |= {"bytes": bytes_of[RETRIEVAL], **first, **none, **whole}
    costs = ("bytes", *(key for key in figures[SHIPS] if key.endswith("_ms")))
    figures["ranking_alone"] |= {key: figures[SHIPS][key] for key in costs}
    for own in figures.values():
        own["latency_ratio"] = own["p50_ms"] / figures["teacher"]["p50_ms"]

    weight = ways[SHIPS][1]
    digests = {role: file_digest(path / RECORD) for role, path in packages.items()}
    commit = commit_of(workspace.root)
    source = str(tasks[RETRIEVAL].dataset.record["source_digest"])
    bound = Bound(
        name=workspace.scenario,
        parts=packages,
        candidates=settings.candidates,
        weight=weight,
        requests=tasks[RETRIEVAL].golden_requests(GOLDEN_REQUESTS),
        figures=figures[SHIPS],
        lineage={**digests, "source": source, "commit": commit.commit, "version": version("recstill")},
        dirty=commit.dirty,
        params=settings.model_dump(mode="json"),
    )
    titles = {primary.key: primary.title, "recall": f"Recall@{tests.cutoff}"}
    titles["recall_candidates"] = f"Recall@{settings.candidates}"
    findings = TwoStageFindings(
        name=workspace.scenario,
        tested=tasks[RETRIEVAL].wording().tested,
        measures=[{"key": key, "title": title, "group": "", "percent": False} for key, title in titles.items()],
        titles=TITLES,
        figures=figures,
        targets=len(tests.users),
        users=len(np.unique(tests.users)),
        weights={f"{one:g}": value for one, value in weights[0].items()},
        weight=weight,
        candidates=settings.candidates,
        parts=digests,
    )
    with new_folder(workspace.artifacts / "package") as folder:
        write_bound(folder, bound)
    with new_folder(workspace.artifacts / "report") as folder:
        write_two_stage_report(folder, findings)
    workspace.write_metrics("bind", {name: own[primary.key] for name, own in figures.items()}, started)
    print(f"bind: weight {weight:g}; {figures[SHIPS]['bytes']:,} bytes in {workspace.artifacts / 'package'}")


def _held_out(split: Split, tasks: Mapping[str, Task], scenarios: Mapping[str, str]) -> HeldOutOutcomes:
    """The points of the retrieval's split that are later than what both models have learned from.

    Raises:
        SettingsError: The two are of different sources.
        DataError: There is no such point.
    """
    sources = {str(task.dataset.record["source_digest"]) for task in tasks.values()}
    names = " and ".join(repr(name) for name in scenarios.values())
    if len(sources) > 1:
        raise SettingsError(
            f"the scenarios {names} have learned from different events",
            "Give both the same `source`, so that one instant divides what is learned from what is tested.",
        )
    after = max(task.learned_until(split) for task in tasks.values())
    held = tasks[RETRIEVAL].asked(split, after)
    if not len(held.users):
        raise DataError(
            f"no {split} event of {scenarios[RETRIEVAL]!r} is later than all that {names} have learned from",
            "Set prepare.split: temporal in both.",
        )
    return held


if __name__ == "__main__":
    run_stage("bind", work)
