"""A task's batches, as Lightning takes them, with the teacher's labels when there are any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import pytorch_lightning as pl

from components.errors import SettingsError
from components.tasks.batch import Batch, EvaluationBatch
from components.tasks.contract import Task
from components.training.ahead import prepared_ahead

if TYPE_CHECKING:
    from components.soft_labels.reader import SoftLabelReader

_EVALUATION_BATCH = 256
_AHEAD = 4


class TaskData(pl.LightningDataModule):
    """Batches come ready-made, so there are no samples to collate and no workers to start.

    Args:
        task: Makes the batches.
        batch_size: See :meth:`Task.training_batches`.
        seed: Decides, with the epoch, how histories are cut and in which order batches come.
        labels: The teacher's cached distributions, which training batches are to carry; None for none.
    """

    def __init__(self, task: Task, batch_size: int, seed: int, labels: SoftLabelReader | None = None) -> None:
        super().__init__()
        self.task, self.batch_size, self.seed, self.labels = task, batch_size, seed, labels
        self._validation_batch_size: int | None = None

    def train_dataloader(self) -> Sequence[Batch]:
        """The epoch's batches, the share of this device."""
        assert self.trainer is not None
        batches = self.task.training_batches(
            self.batch_size,
            seed=self.seed,
            epoch=self.trainer.current_epoch,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )
        return batches if self.labels is None else LabelledBatches(batches, self.labels)

    def val_dataloader(self) -> _Validation:
        """The validation events, the share of this device.

        Raises:
            SettingsError: There are more devices than validation points.
        """
        assert self.trainer is not None
        if self._validation_batch_size is None:
            self._validation_batch_size = _validation_batch_size(self.task, self.trainer.world_size)
        return _Validation(self.task, self._validation_batch_size, self.trainer.global_rank, self.trainer.world_size)


class ValidationBatch(NamedTuple):
    """Held-out points, and whether they are this device's to judge.

    Attributes:
        batch: The points.
        counted: False where a device has none left while others have: it takes the step, and another counts it.
    """

    batch: EvaluationBatch
    counted: bool


class LabelledBatches(Sequence[Batch]):
    """Batches together with the teacher's labels of their points, at temperature 1.

    Whoever iterates gets the batches in their order, as often as wanted, while the next few are made by a thread in
    the background. What goes wrong there is raised here, in the place of the batch that it kept from coming.

    Args:
        batches: What to label.
        labels: Finds the labels of points.
        ahead: How many batches are made before they are asked for; 0 makes each when it is asked for.
    """

    def __init__(self, batches: Sequence[Batch], labels: SoftLabelReader, ahead: int = _AHEAD) -> None:
        self._batches, self._labels, self._ahead = batches, labels, ahead

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]
        batch = self._batches[index]
        return batch._replace(labels=self._labels.labels(batch.points))

    def __iter__(self) -> Iterator[Batch]:
        made = (self[index] for index in range(len(self)))
        return prepared_ahead(made, self._ahead) if self._ahead else made


class _Validation:
    """Iterable again and again, with those of one turn in memory; every device gets as many as every other.

    Under DDP each call of the module exchanges buffers, so a device that made one call more would wait for ever.
    """

    def __init__(self, task: Task, batch_size: int, rank: int, world: int) -> None:
        self._task, self._batch_size, self._rank, self._world = task, batch_size, rank, world

    def __iter__(self) -> Iterator[ValidationBatch]:
        batches = self._task.evaluation_batches("validation", self._batch_size)
        while turn := list(islice(batches, self._world)):
            counted = self._rank < len(turn)
            yield ValidationBatch(turn[self._rank if counted else 0], counted)


def _validation_batch_size(task: Task, world: int) -> int:
    """Points a batch, few enough that every device has something of its own to judge.

    Raises:
        SettingsError: There are more devices than points.
    """
    if world == 1:
        return _EVALUATION_BATCH
    points = sum(len(batch.targets) for batch in task.evaluation_batches("validation", _EVALUATION_BATCH))
    if points < world:
        raise SettingsError(
            f"the data set has {points} validation points, which {world} devices cannot share",
            "Give it more data, or lower scenarios.*.trainer.devices (times num_nodes) in params.yaml.",
        )
    return min(_EVALUATION_BATCH, points // world)
