"""Train the student on what users did and on what the teacher would have expected of them."""

from __future__ import annotations

import time

from components.networks.building import write_network
from components.settings.distillation import DistillationSettings
from components.settings.student import StudentSettings
from components.settings.training import TrainerSettings
from components.soft_labels.reader import open_labels
from components.stages.trained import training_scratch, write_training
from components.stages.workspace import Workspace, run_stage
from components.storage.atomic import new_folder
from components.tasks.building import open_task
from components.training.fitting import fit, initial_network


def work(workspace: Workspace) -> None:
    """From ``dataset/`` and the soft-label cache to ``student/``, its curve and metrics."""
    started = time.monotonic()
    settings = workspace.settings("student", StudentSettings)
    distillation = workspace.settings("distillation", DistillationSettings)
    trainer = workspace.settings("trainer", TrainerSettings)
    seed = workspace.value("seed")
    task = open_task(workspace.value("task"), workspace.artifacts / "dataset", settings.network.max_length)
    labels = open_labels(workspace.artifacts / "soft_labels" / "manifest.json", task.dataset.digest)
    labels.prefetch()
    network = initial_network(settings.network, task.outcomes, seed, task.sizes)
    with training_scratch(workspace, "distill") as scratch:
        result = fit(
            network,
            task,
            settings.optimization,
            trainer,
            seed,
            labels=labels,
            distillation=distillation,
            name="student",
            scratch=scratch,
            scenario=workspace.scenario,
            watch=workspace.watch,
        )
        if not result.leads:
            return
        with new_folder(workspace.artifacts / "student") as folder:
            write_network(folder, network)
    write_training(
        workspace, "distill", [network], [result], started, measure=task.primary, labels=labels.manifest.cache_id
    )
    print(f"student: best validation {task.primary.title} {result.best:.4f} in {result.epochs} epochs")


if __name__ == "__main__":
    run_stage("distill", work)
