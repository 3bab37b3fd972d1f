"""A task's batches, as Lightning takes them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import pytorch_lightning as pl

from components.tasks.batch import EvaluationBatch
from components.tasks.next_item import NextItem, TrainingBatches

_EVALUATION_BATCH = 256


class TaskData(pl.LightningDataModule):
    """Batches come ready-made, so there are no samples to collate and no workers to start.

    Args:
        task: Makes the batches.
        batch_size: See :meth:`NextItem.training_batches`.
        seed: Decides, with the epoch, how histories are cut and in which order batches come.
    """

    def __init__(self, task: NextItem, batch_size: int, seed: int) -> None:
        super().__init__()
        self.task, self.batch_size, self.seed = task, batch_size, seed

    def train_dataloader(self) -> TrainingBatches:
        """The epoch's batches, the share of this device."""
        assert self.trainer is not None
        return self.task.training_batches(
            self.batch_size,
            seed=self.seed,
            epoch=self.trainer.current_epoch,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
        )

    def val_dataloader(self) -> _Validation:
        """The validation events, the share of this device."""
        assert self.trainer is not None
        return _Validation(self.task, self.trainer.global_rank, self.trainer.world_size)


class _Validation:
    """Iterable again and again, without keeping the batches in memory."""

    def __init__(self, task: NextItem, rank: int, world: int) -> None:
        self._task, self._rank, self._world = task, rank, world

    def __iter__(self) -> Iterator[EvaluationBatch]:
        batches = self._task.evaluation_batches("validation", _EVALUATION_BATCH)
        return islice(batches, self._rank, None, self._world)
