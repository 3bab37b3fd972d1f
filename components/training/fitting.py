"""Training of one network, from its first weights to its best."""

from __future__ import annotations

import copy
import csv
import inspect
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import rich.console
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping

from components.errors import RecstillError, SettingsError, TrainingError
from components.networks.building import new_network
from components.networks.contract import PredictionNetwork
from components.settings.base import nearest
from components.settings.distillation import DistillationSettings
from components.settings.network import NetworkSettings
from components.settings.threads import threads_per_network
from components.settings.training import OptimizationSettings, TrainerSettings
from components.storage.atomic import new_file
from components.tasks.contract import Task
from components.training.callbacks import BestWeights, Epoch, EpochLines, EpochWatch, ResumePoint, TrainingBar
from components.training.checkpoint_io import SafetensorsCheckpointIO
from components.training.data import TaskData
from components.training.distilling import DistillationTraining
from components.training.module import VALIDATION, ExtraLoss, NetworkTraining, SupervisedTraining
from components.training.resuming import resume_file, training_digest
from components.training.rounded import RoundedWeights, WeightRounding

if TYPE_CHECKING:
    from components.soft_labels.reader import SoftLabelReader


@dataclass(frozen=True)
class FitResult:
    """How a training went.

    Attributes:
        name: Of the network.
        curve: A row an epoch.
        best: The greatest validation of all epochs; the network has the weights of that epoch.
        leads: False in the further processes that Lightning starts for several devices: they run the same program,
            and must leave the writing of results to the first.
    """

    name: str
    curve: tuple[Epoch, ...]
    best: float
    leads: bool = True

    @property
    def epochs(self) -> int:
        """Epochs that were trained."""
        return len(self.curve)


def initial_network(
    settings: NetworkSettings, outcomes: int, seed: int, sizes: Mapping[str, Any] | None = None
) -> PredictionNetwork:
    """A new network whose weights depend on these and on nothing else; see :func:`new_network`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return new_network(settings, outcomes, sizes)


def fit(
    network: PredictionNetwork,
    task: Task,
    optimization: OptimizationSettings,
    trainer: TrainerSettings,
    seed: int,
    *,
    labels: SoftLabelReader | None = None,
    distillation: DistillationSettings | None = None,
    name: str = "network",
    extra_loss: ExtraLoss | None = None,
    extra_inputs: Any = None,
    rounding: WeightRounding | None = None,
    scratch: Path | None = None,
    scenario: str = "*",
    threads: int | None = None,
    plain: bool = False,
    watch: Callable[[str, Epoch], None] | None = None,
) -> FitResult:
    """Train ``network`` in place; it ends with the weights of its best epoch, in evaluation mode.

    The same network, data, settings, seed and number of threads give the same weights, whether the training was
    interrupted in between or not.

    Args:
        network: On the CPU.
        task: Makes the batches.
        optimization: Epochs, steps and rates.
        trainer: Arguments of Lightning's Trainer.
        seed: Decides the order of the batches and dropout.
        labels: The teacher's cached distributions; None trains on observed outcomes alone.
        distillation: Weights of the loss, needed with ``labels``.
        name: Of the network, in messages and in the curve.
        extra_loss: A term of the network's weights, added to the loss of each step. It is given the network that is
            being trained, which is a copy of ``network``.
        extra_inputs: JSON-able, what ``extra_loss`` depends on: a training with another one is not resumed.
        rounding: Each step, and validation, computes with the weights that it gives; see :mod:`.rounded`.
        scratch: Folder for the state after each epoch, from which an interrupted training goes on; the caller deletes
            it once the result is safe. None: an interrupted training starts anew.
        scenario: Named in errors about ``trainer`` and ``distillation``.
        threads: Processor threads; None as :func:`threads_per_network` says.
        plain: Lines instead of a progress bar, even in a terminal.
        watch: Is told of each epoch, with ``name``, and may end the training by raising.

    Raises:
        SettingsError: Lightning refuses ``trainer``, there are more devices than validation points, or a loss needs
            labels that the cache does not hold.
        TrainingError: The loss is not finite, or nothing can be learned from or validated on.
        KeyboardInterrupt: Ctrl-C; what ``scratch`` holds stays.
    """
    _check_data(task)
    module = _module(
        copy.deepcopy(network),
        task,
        optimization,
        seed,
        labels=labels,
        distillation=distillation,
        extra_loss=extra_loss,
        scenario=scenario,
    )
    terminal = rich.console.Console().is_terminal and not plain
    kept = BestWeights()
    stop = EarlyStopping(VALIDATION, mode="max", patience=optimization.patience, check_on_train_epoch_end=False)
    callbacks: list[Callback] = [kept, stop]
    if rounding is not None:
        callbacks.insert(0, RoundedWeights(rounding))
    resumable = None
    if scratch is not None:
        inputs = {
            "dataset": task.dataset.digest,
            "max_length": task.max_length,
            "optimization": optimization.model_dump(mode="json"),
            "trainer": trainer.model_dump(mode="json"),
            "seed": seed,
            "distillation": None if distillation is None else distillation.model_dump(mode="json"),
            "labels": None if labels is None else labels.manifest.cache_id,
            "extra_loss": [extra_loss is not None, extra_inputs],
            "rounding": None if rounding is None else rounding.record(),
        }
        path = resume_file(scratch, training_digest(network, inputs))
        resumable = path if path.is_file() else None
        callbacks.append(ResumePoint(path))
    if watch is not None:
        callbacks.append(EpochWatch(partial(watch, name)))
    callbacks.append(
        TrainingBar(name, optimization.max_epochs)
        if terminal
        else EpochLines(name, optimization.max_epochs, task.primary.title)
    )
    with _quiet(), _threads(threads if threads is not None else threads_per_network()), _interruptible():
        lightning = _trainer(trainer, optimization.max_epochs, callbacks, terminal=terminal, scenario=scenario)
        try:
            data = TaskData(task, optimization.batch_size, seed, labels)
            lightning.fit(module, datamodule=data, ckpt_path=resumable)
        except SystemExit:
            # Lightning turns Ctrl-C into an exit with status 1; the stage decides how it ends.
            raise KeyboardInterrupt from None
    if not kept.curve:
        raise TrainingError(
            f"the training of {name} ended before it was validated once",
            f"Take limits such as limit_val_batches or max_steps out of 'scenarios.{scenario}.trainer' in params.yaml.",
        )
    network.load_state_dict(kept.weights)
    network.eval()
    return FitResult(name, tuple(kept.curve), kept.best, lightning.is_global_zero)


def write_curves(path: Path, results: Sequence[FitResult]) -> None:
    """Write ``network,epoch,train_loss,validation``, a row an epoch."""
    with new_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["network", *Epoch._fields])
        for result in results:
            for row in result.curve:
                writer.writerow([result.name, row.epoch, f"{row.train_loss:.6f}", f"{row.validation:.6f}"])


def _check_data(task: Task) -> None:
    if task.points == 0:
        raise TrainingError("the data set has no training point", "Give it more events a user, or a later split.")
    if next(iter(task.evaluation_batches("validation", 1)), None) is None:
        raise TrainingError(
            "the data set has no validation point that could be predicted",
            "Give it more data (of a user: longer histories), or raise prepare.validation_share.",
        )


def _module(
    network: PredictionNetwork,
    task: Task,
    optimization: OptimizationSettings,
    seed: int,
    *,
    labels: SoftLabelReader | None,
    distillation: DistillationSettings | None,
    extra_loss: ExtraLoss | None,
    scenario: str,
) -> NetworkTraining:
    if labels is None:
        return SupervisedTraining(network, optimization, seed, task=task, extra_loss=extra_loss)
    if distillation is None:
        raise ValueError("soft labels need the settings of the distillation")
    return DistillationTraining(
        network,
        optimization,
        seed,
        labels=labels,
        distillation=distillation,
        task=task,
        extra_loss=extra_loss,
        where=f"scenarios.{scenario}",
    )


def _trainer(
    settings: TrainerSettings, max_epochs: int, callbacks: list[Callback], *, terminal: bool, scenario: str
) -> pl.Trainer:
    known = list(inspect.signature(pl.Trainer.__init__).parameters)
    for argument in settings.model_extra or {}:
        if argument not in known:
            raise SettingsError(
                f"params.yaml: Lightning's Trainer has no argument 'scenarios.{scenario}.trainer.{argument}'; "
                f"{nearest(argument, known)}"
            )
    try:
        return pl.Trainer(
            **settings.model_dump(),
            max_epochs=max_epochs,
            callbacks=callbacks,
            plugins=[SafetensorsCheckpointIO()],
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=terminal,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
        )
    except RecstillError:
        raise
    # Lightning, torch and their plugins refuse in many ways: TypeError, ValueError, their own classes, ImportError.
    except Exception as error:
        reason = str(error).strip()
        raise SettingsError(
            f"params.yaml: Lightning's Trainer refuses 'scenarios.{scenario}.trainer': {reason}",
            "Its arguments are explained at https://lightning.ai/docs/pytorch/stable/common/trainer.html",
        ) from None


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Gives back the handlers of Ctrl-C and of a polite kill, which Lightning replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's notes on hardware, tips, and warnings about what is done here on purpose."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for package in ("pytorch_lightning", "lightning_fabric", "torch.utils.data", "torchmetrics"):
                warnings.filterwarnings("ignore", module=package.replace(".", r"\."))
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
