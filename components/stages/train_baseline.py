"""Train the student's network without a teacher, to show what the teacher is worth."""

from __future__ import annotations

import time

from components.networks.building import write_network
from components.settings.least_squares import LeastSquaresSettings
from components.settings.student import StudentSettings
from components.settings.threads import threads_per_network
from components.settings.training import TrainerSettings
from components.stages.trained import training_scratch, write_training
from components.stages.workspace import Workspace, run_stage
from components.storage.atomic import new_folder
from components.tasks.building import open_task
from components.training.fitting import fit, initial_network
from components.training.least_squares import fit_least_squares


def work(workspace: Workspace) -> None:
    """From ``dataset/`` to ``baseline/``, its curve and metrics. Seed and first weights are the student's."""
    started = time.monotonic()
    settings = workspace.settings("student", StudentSettings)
    trainer = workspace.settings("trainer", TrainerSettings)
    seed = workspace.value("seed")
    task = open_task(workspace.value("task"), workspace.artifacts / "dataset", settings.network.max_length)
    network = initial_network(settings.network, task.outcomes, seed, task.sizes)
    optimization = settings.without_teacher or settings.optimization
    with training_scratch(workspace, "train_baseline") as scratch:
        if isinstance(optimization, LeastSquaresSettings):
            threads = threads_per_network()
            result = fit_least_squares(network, task, optimization, name="baseline", threads=threads)
        else:
            result = fit(
                network,
                task,
                optimization,
                trainer,
                seed,
                name="baseline",
                scratch=scratch,
                scenario=workspace.scenario,
            )
        if not result.leads:
            return
        with new_folder(workspace.artifacts / "baseline") as folder:
            write_network(folder, network)
    write_training(workspace, "train_baseline", [network], [result], started, measure=task.primary)
    print(f"baseline: best validation {task.primary.title} {result.best:.4f} in {result.epochs} epochs")


if __name__ == "__main__":
    run_stage("train_baseline", work)
