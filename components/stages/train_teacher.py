"""Train the teacher: one network, or several that count as one."""

from __future__ import annotations

import time
from pathlib import Path

from components.networks.building import write_network
from components.networks.ensemble import TEACHER_FILE, teacher_digest
from components.settings.teacher import TeacherSettings
from components.settings.training import TrainerSettings
from components.stages.trained import training_scratch, write_training
from components.stages.workspace import Workspace, run_stage
from components.storage.atomic import new_folder, write_json
from components.tasks.building import task_class
from components.training.members import TeacherTraining, train_members
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
        members = train_members(training)
        if not members[0].result.leads:
            return
        with new_folder(workspace.artifacts / "teacher") as folder:
            for number, member in enumerate(members):
                (folder / f"member-{number}").mkdir()
                write_network(folder / f"member-{number}", member.network)
            write_json(folder / TEACHER_FILE, {"members": len(members)})
            write_json(folder / TEACHER_FILE, {"members": len(members), "digest": teacher_digest(folder)})
    networks, results = zip(*members, strict=True)
    primary = task_class(workspace.value("task")).measures[0]
    write_training(workspace, "train_teacher", networks, results, started, measure=primary, members=len(members))
    for result in results:
        print(f"{result.name}: best validation {primary.title} {result.best:.4f} in {result.epochs} epochs")


def _earlier(settings: TeacherSettings, scratch: Path) -> Path | None:
    if settings.warm_start is None:
        return None
    print(f"starting from teacher {settings.warm_start[:12]}", flush=True)
    return earlier_teacher(settings.warm_start, settings.members, scratch / "earlier")


if __name__ == "__main__":
    run_stage("train_teacher", work)
