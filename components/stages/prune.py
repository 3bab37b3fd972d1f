"""Cut channels, heads and width out of the student, and fine-tune what is left on the soft labels."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import torch

from components.compression.importance import group_lasso
from components.compression.pruning import PrunedNetwork, groups_to_cut, pruned, validation_ndcg10
from components.data.dataset import read_dataset
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
from components.tasks.building import task_of
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
    dataset = read_dataset(workspace.artifacts / "dataset")
    labels = open_labels(workspace.artifacts / "soft_labels" / "manifest.json", dataset.digest)
    labels.prefetch()
    student = read_network(workspace.artifacts / "student")
    task = task_of(workspace.value("task"), dataset, int(student.record()["max_length"]))
    groups = groups_to_cut(student, settings)
    before = validation_ndcg10(student, task)
    if not groups:
        print("all ratios are 0: nothing is cut, and pruned/ is a copy of student/")
        _write(workspace, started, student, FitResult("pruned", (), before), {"validation_ndcg10_before": before})
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
            counts=task.outcome_counts,
            where=f"scenarios.{workspace.scenario}",
        ).eval()
        result = pruned(original, groups, settings, task=task, loss=judge.served_loss_sum, seed=seed)
        after = validation_ndcg10(result.network, task)
        for line in _summary(student, result, before, after):
            print(line, flush=True)
        tuning = tuned(result.network, scratch, "pruned")
        if not tuning.leads:
            return
        further = {
            "importance": settings.importance,
            "kept": result.shares(),
            "mask_difference": result.mask_difference,
            "parameters_before": _parameters(student),
            "validation_ndcg10_before": before,
            "validation_ndcg10_after_cut": after,
        }
        _write(workspace, started, result.network, tuning, further)
    print(f"pruned: best validation NDCG@10 {tuning.best:.4f} in {tuning.epochs} epochs (student {before:.4f})")


def _write(
    workspace: Workspace, started: float, network: PredictionNetwork, result: FitResult, further: dict[str, Any]
) -> None:
    with new_folder(workspace.artifacts / "pruned") as folder:
        write_network(folder, network)
    write_training(workspace, "prune", [network], [result], started, **further)


def _summary(student: PredictionNetwork, result: PrunedNetwork, before: float, after: float) -> list[str]:
    shares = ", ".join(f"{name} {share}" for name, share in result.shares().items())
    sizes = f"{_parameters(student):,} to {_parameters(result.network):,} parameters"
    return [f"kept {shares}", f"{sizes}; validation NDCG@10 {before:.4f} to {after:.4f} before fine-tuning"]


def _parameters(network: PredictionNetwork) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    run_stage("prune", work)
