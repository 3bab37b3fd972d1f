"""Train the teacher: one network, or several that count as one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from components.networks.ensemble import write_teacher
from components.settings.teacher import TeacherSettings
from components.settings.training import TrainerSettings
from components.stages.trained import training_scratch, write_training
from components.stages.workspace import Workspace, run_stage
from components.storage.atomic import new_folder
from components.tasks.building import task_class
from components.tasks.contract import Measure
from components.training.fitting import FitResult
from components.training.generations import train_generations
from components.training.members import TeacherTraining
from components.training.warm_start import earlier_teacher


def work(workspace: Workspace) -> None:
    """From ``dataset/`` to ``teacher/``, its curves and metrics."""
    started = time.monotonic()
    settings = workspace.settings("teacher", TeacherSettings)
    with training_scratch(workspace, "train_teacher") as scratch:
        training = TeacherTraining(
            dataset=workspace.artifacts / "dataset",
            task=workspace.value("task"),
            settings=settings,
            trainer=workspace.settings("trainer", TrainerSettings),
            seed=workspace.value("seed"),
            scratch=scratch,
            scenario=workspace.scenario,
            earlier=_earlier(settings, scratch),
        )
        members, earlier = train_generations(training)
        if not members[0].result.leads:
            return
        with new_folder(workspace.artifacts / "teacher") as folder:
            write_teacher(folder, [member.network for member in members])
    networks, results = zip(*members, strict=True)
    primary = task_class(workspace.value("task")).measures[0]
    write_training(
        workspace,
        "train_teacher",
        networks,
        results,
        started,
        measure=primary,
        earlier=[result for generation in earlier for result in generation],
        members=len(members),
        **_of_generations(earlier, primary),
    )
    for result in (*(result for generation in earlier for result in generation), *results):
        print(f"{result.name}: best validation {primary.title} {result.best:.4f} in {result.epochs} epochs")


def _earlier(settings: TeacherSettings, scratch: Path) -> Path | None:
    if settings.warm_start is None:
        return None
    print(f"starting from teacher {settings.warm_start[:12]}", flush=True)
    # A first generation of more networks than the earlier teacher had: those that have a counterpart start from it.
    members = min(settings.members_of(1), settings.members)
    return earlier_teacher(settings.warm_start, members, scratch / "earlier")


def _of_generations(earlier: Sequence[Sequence[FitResult]], primary: Measure) -> dict[str, float]:
    """How many generations there were, and how good each before the last one was; nothing of one alone."""
    if not earlier:
        return {}
    return {"generations": len(earlier) + 1} | {
        f"generation_{number}_validation_{primary.key}": sum(result.best for result in results) / len(results)
        for number, results in enumerate(earlier, start=1)
    }


if __name__ == "__main__":
    run_stage("train_teacher", work)
