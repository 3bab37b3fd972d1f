"""A task's batches, as Lightning takes them, with the teacher's labels when there are any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import pytorch_lightning as pl

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
        """The validation events, the share of this device."""
        assert self.trainer is not None
        return _Validation(self.task, self.trainer.global_rank, self.trainer.world_size)


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
    """Iterable again and again, without keeping the batches in memory."""

    def __init__(self, task: Task, rank: int, world: int) -> None:
        self._task, self._rank, self._world = task, rank, world

    def __iter__(self) -> Iterator[EvaluationBatch]:
        batches = self._task.evaluation_batches("validation", _EVALUATION_BATCH)
        return islice(batches, self._rank, None, self._world)
