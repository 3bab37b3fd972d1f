"""Cut channels, heads and width out of the student, and fine-tune what is left on the soft labels."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from components.compression.cost import multiply_adds
from components.compression.importance import group_lasso
from components.compression.pruning import PrunedNetwork, groups_to_cut, validation_quality
from components.compression.rounding import Rounding, write_rounding
from components.compression.schedule import cuts
from components.errors import RecstillError
from components.networks.building import read_network, write_network
from components.networks.contract import PredictionNetwork
from components.networks.ensemble import member_folders, write_teacher
from components.settings.distillation import DistillationSettings
from components.settings.pruning import PruningSettings
from components.settings.quantization import QuantizationAwareSettings
from components.settings.threads import threads_per_network
from components.settings.training import TrainerSettings
from components.soft_labels.own_labels import TEACHER, own_labels, settings_for
from components.soft_labels.reader import SoftLabelReader, open_labels
from components.stages.trained import training_scratch, write_training
from components.stages.workspace import Workspace, run_stage
from components.storage.atomic import new_folder
from components.storage.checkpoints import checkpoint_digest
from components.tasks.batch import Batch
from components.tasks.building import open_task
from components.tasks.contract import Measure, Task
from components.training.callbacks import Epoch
from components.training.distilling import DistillationTraining
from components.training.fitting import FitResult, fit

Watch = Callable[[str, Epoch], None]


class _Teaching(NamedTuple):
    """What the fine-tuning learns from, and by which loss."""

    labels: SoftLabelReader
    distillation: DistillationSettings


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
    if settings.soft_labels_of == "teacher" or settings.importance == "sparsity":
        labels.prefetch()
    groups = groups_to_cut(student, settings)
    before = validation_quality(student, task)
    aware = settings.quantization_aware
    if not groups and aware is None:
        print("all ratios are 0: nothing is cut, and pruned/ is a copy of student/")
        copied, unchanged = FitResult("pruned", (), before), {f"validation_{measure.key}_before": before}
        _write(workspace, started, student, [copied], None, measure=measure, **unchanged)
        return

    def tuned(
        network: PredictionNetwork, scratch: Path, name: str, teaching: _Teaching | None = None, **further: Any
    ) -> FitResult:
        return fit(
            network,
            task,
            further.pop("optimization"),
            trainer,
            seed,
            labels=labels if teaching is None else teaching.labels,
            distillation=distillation if teaching is None else teaching.distillation,
            name=name,
            scratch=scratch / name,
            scenario=workspace.scenario,
            **further,
        )

    def loss_of(network: PredictionNetwork) -> Callable[[Batch], torch.Tensor]:
        judge = DistillationTraining(
            network,
            settings.optimization,
            seed,
            labels=labels,
            distillation=distillation,
            task=task,
            where=f"scenarios.{workspace.scenario}",
        )
        return judge.eval().served_loss_sum

    # Labels before anything is trained: Lightning starts further processes, one for each further device, only then.
    with (
        training_scratch(workspace, "prune") as scratch,
        _by_student(student, scratch / "student", workspace, task, settings) as teaching,
    ):
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
                watch=workspace.watch,
            )
        rounding = None if aware is None else Rounding(aware)
        steps: list[dict[str, Any]] = []
        tunings: list[FitResult] = []
        for step, result in cuts(original, groups, settings, student=student, task=task, loss_of=loss_of, seed=seed):
            after = validation_quality(result.network, task)
            kept = {group.name: f"{len(result.kept[group.name])} of {group.units}" for group in groups}
            for line in _summary(step.name, student, result, kept, measure=measure, qualities=(before, after)):
                print(line, flush=True)
            watch = _continued(workspace.watch, sum(tuning.epochs for tuning in tunings))
            tuning = tuned(
                result.network,
                scratch,
                step.name,
                teaching,
                optimization=step.optimization,
                rounding=rounding,
                watch=watch,
            )
            tunings.append(tuning)
            steps.append(
                {
                    "kept": kept,
                    "mask_difference": result.mask_difference,
                    f"validation_{measure.key}_after_cut": after,
                    f"validation_{measure.key}": tuning.best,
                }
            )
        tunings[-1] = replace(tuning, name="pruned")
        if not tuning.leads:
            return
        further = {
            "importance": settings.importance,
            "soft_labels_of": settings.soft_labels_of,
            "quantization_aware": None if aware is None else aware.form,
            "parameters_before": _parameters(student),
            f"validation_{measure.key}_before": before,
            **steps[-1],
            "mask_difference": max(one["mask_difference"] for one in steps),
        }
        if settings.multiply_adds_share is not None:
            records = {"multiply_adds_before": student.record(), "multiply_adds": result.network.record()}
            further |= {name: multiply_adds(record) for name, record in records.items()}
        if len(steps) > 1:
            further["steps"] = steps
        _write(workspace, started, result.network, tunings, aware, measure=measure, **further)
    epochs_in_all = sum(one.epochs for one in tunings)
    print(f"pruned: best validation {measure.title} {tuning.best:.4f} in {epochs_in_all} epochs (student {before:.4f})")


@contextmanager
def _by_student(
    student: PredictionNetwork, folder: Path, workspace: Workspace, task: Task, settings: PruningSettings
) -> Iterator[_Teaching | None]:
    """What the student itself expects, and nothing else: what is cut out of it is to become it again. None where the
    settings ask for the teacher's labels."""
    if settings.soft_labels_of == "teacher":
        yield None
        return
    # Not written again where it lies already: the processes of further devices may be reading it.
    if not _is_of(folder / TEACHER, workspace.artifacts / "student"):
        with new_folder(folder / TEACHER) as networks:
            write_teacher(networks, [student])
    print("labels of the student before the cut", flush=True)
    with own_labels(
        folder,
        workspace.artifacts / "dataset",
        workspace.value("task"),
        settings_for(task.outcomes),
        workspace.settings("trainer", TrainerSettings).accelerator,
        # Trials run side by side, and time one another's forms.
        workers=None if workspace.watch is None else 1,
    ) as labels:
        yield _Teaching(labels, DistillationSettings(lambda_hard=0.0, lambda_soft=1.0))


def _is_of(teacher: Path, network: Path) -> bool:
    """Whether a teacher's folder is there, and holds this one network."""
    try:
        return [checkpoint_digest(member) for member in member_folders(teacher)] == [checkpoint_digest(network)]
    except (RecstillError, OSError):
        return False


def _continued(watch: Watch | None, done: int) -> Watch | None:
    """Who watches the fine-tuning sees one network and one count of epochs, in however many steps it is cut."""
    return None if watch is None else lambda _, epoch: watch("pruned", epoch._replace(epoch=epoch.epoch + done))


def _write(
    workspace: Workspace,
    started: float,
    network: PredictionNetwork,
    results: Sequence[FitResult],
    aware: QuantizationAwareSettings | None,
    *,
    measure: Measure,
    **further: Any,
) -> None:
    with new_folder(workspace.artifacts / "pruned") as folder:
        write_network(folder, network)
        if aware is not None:
            write_rounding(folder, aware)
    write_training(workspace, "prune", [network], results, started, measure=measure, **further)


def _summary(
    name: str,
    student: PredictionNetwork,
    result: PrunedNetwork,
    kept: Mapping[str, str],
    *,
    measure: Measure,
    qualities: tuple[float, float],
) -> list[str]:
    shares = ", ".join(f"{group} {share}" for group, share in kept.items())
    sizes = f"{_parameters(student):,} to {_parameters(result.network):,} parameters"
    before, after = qualities
    return [
        f"{name}: kept {shares}",
        f"{sizes}; validation {measure.title} {before:.4f} to {after:.4f} before fine-tuning",
    ]


def _parameters(network: PredictionNetwork) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


if __name__ == "__main__":
    run_stage("prune", work)
