"""Cut channels, heads and width out of the student, and fine-tune what is left on the soft labels."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import torch

from components.compression.importance import group_lasso
from components.compression.pruning import PrunedNetwork, groups_to_cut, pruned, validation_quality
from components.compression.rounding import Rounding
from components.networks.building import read_network, write_network
from components.networks.contract import PredictionNetwork
from components.settings.distillation import DistillationSettings
from components.settings.pruning import PruningSettings
from components.settings.threads import threads_per_network
from components.settings.training import TrainerSettings
from components.soft_labels.reader import open_labels
from components.stages.trained import training_scratch, write_training
from components.stages.workspace import Workspace, run_stage
from components.storage.atomic import new_folder
from components.tasks.building import open_task
from components.tasks.contract import Measure
from components.training.distilling import DistillationTraining
from components.training.fitting import FitResult, fit


def work(workspace: Workspace) -> None:
    """From ``dataset/``, the soft-label cache and ``student/`` to ``pruned/``, its curve and metrics."""
    torch.set_num_threads(threads_per_network())
    started = time.monotonic()
    settings = workspace.settings("pruning", PruningSettings)
    distillation = workspace.settings("distillation", DistillationSettings)
    trainer = workspace.settings("trainer", TrainerSettings)
    seed = workspace.value("seed")
    student = read_network(workspace.artifacts / "student")
    task = open_task(workspace.value("task"), workspace.artifacts / "dataset", student.max_length)
    measure = task.primary
    labels = open_labels(workspace.artifacts / "soft_labels" / "manifest.json", task.dataset.digest)
    labels.prefetch()
    groups = groups_to_cut(student, settings)
    before = validation_quality(student, task)
    aware = settings.quantization_aware
    if not groups and aware is None:
        print("all ratios are 0: nothing is cut, and pruned/ is a copy of student/")
        copied, unchanged = FitResult("pruned", (), before), {f"validation_{measure.key}_before": before}
        _write(workspace, started, student, copied, measure=measure, **unchanged)
        return

    def tuned(network: PredictionNetwork, scratch: Path, name: str, **further: Any) -> FitResult:
        return fit(
            network,
            task,
            further.pop("optimization", settings.optimization),
            trainer,
            seed,
            labels=labels,
            distillation=distillation,
            name=name,
            scratch=scratch / name,
            scenario=workspace.scenario,
            watch=workspace.watch,
            **further,
        )

    with training_scratch(workspace, "prune") as scratch:
        original = copy.deepcopy(student)
        if settings.importance == "sparsity":
            print(f"group lasso for {settings.sparsity_epochs} epochs", flush=True)
            epochs = {"max_epochs": settings.sparsity_epochs, "patience": settings.sparsity_epochs}
            tuned(
                original,
                scratch,
                "sparse",
                optimization=settings.optimization.model_copy(update=epochs),
                extra_loss=group_lasso(groups, settings.sparsity_weight),
                extra_inputs=settings.model_dump(mode="json"),
            )
        judge = DistillationTraining(
            original,
            settings.optimization,
            seed,
            labels=labels,
            distillation=distillation,
            task=task,
            where=f"scenarios.{workspace.scenario}",
        ).eval()
        result = pruned(original, groups, settings, task=task, loss=judge.served_loss_sum, seed=seed)
        after = validation_quality(result.network, task)
        for line in _summary(student, result, measure, before, after):
            print(line, flush=True)
        rounding = None if aware is None else Rounding(aware)
        tuning = tuned(result.network, scratch, "pruned", rounding=rounding)
        if not tuning.leads:
            return
        further = {
            "importance": settings.importance,
            "quantization_aware": None if aware is None else aware.form,
            "kept": result.shares(),
            "mask_difference": result.mask_difference,
            "parameters_before": _parameters(student),
            f"validation_{measure.key}_before": before,
            f"validation_{measure.key}_after_cut": after,
        }
        _write(workspace, started, result.network, tuning, measure=measure, **further)
    print(f"pruned: best validation {measure.title} {tuning.best:.4f} in {tuning.epochs} epochs (student {before:.4f})")


def _write(
    workspace: Workspace,
    started: float,
    network: PredictionNetwork,
    result: FitResult,
    *,
    measure: Measure,
    **further: Any,
) -> None:
    with new_folder(workspace.artifacts / "pruned") as folder:
        write_network(folder, network)
    write_training(workspace, "prune", [network], [result], started, measure=measure, **further)


def _summary(
    student: PredictionNetwork, result: PrunedNetwork, measure: Measure, before: float, after: float
) -> list[str]:
    shares = ", ".join(f"{name} {share}" for name, share in result.shares().items())
    sizes = f"{_parameters(student):,} to {_parameters(result.network):,} parameters"
    return [f"kept {shares}", f"{sizes}; validation {measure.title} {before:.4f} to {after:.4f} before fine-tuning"]


def _parameters(network: PredictionNetwork) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    run_stage("prune", work)
