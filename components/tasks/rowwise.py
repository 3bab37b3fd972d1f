"""What all tasks have in common whose points are single rows of a data set, whatever a network sees of a row."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Protocol

import numpy as np
import torch

from components.data.dataset import Split
from components.tasks.batch import Batch, EvaluationBatch, Feed, Scorer
from components.tasks.contract import Dataset, Judgement, Task

_CALIBRATION_BATCH = 64


class RowDataset(Dataset, Protocol):
    """A prepared data set whose points are rows."""

    def rows(self, split: Split) -> np.ndarray:
        """Row numbers of a split, ascending."""


class RowwiseTask(Task):
    """Batches of rows; a subclass says what a network sees of them, and how good scores are."""

    best_of = 1
    rows_a_sample: ClassVar[int] = 1
    """Rows that are scored for a soft label where another task scores one sample, which may have many points."""

    dataset: RowDataset

    @abstractmethod
    def feed_of(self, rows: np.ndarray) -> Feed:
        """What a network sees of these rows of the data set."""

    @abstractmethod
    def targets_of(self, rows: np.ndarray) -> np.ndarray:
        """``(B,)`` int64, what was observed in these rows."""

    @abstractmethod
    def judgement(self, scores: np.ndarray, targets: np.ndarray, drawn: np.ndarray) -> Judgement:
        """How good the scores ``(T, K)`` of all rows are; ``drawn`` ``(T,)`` as :meth:`drawn_with` has it."""

    def rows_of(self, points: np.ndarray) -> np.ndarray:
        """The rows of training points; the points themselves where training rows stand first."""
        return points

    def drawn_with(self, rows: np.ndarray) -> np.ndarray:
        """``(B,)`` int64, what a bootstrap draws together; each row by itself unless a subclass says otherwise."""
        return rows

    @property
    def points(self) -> int:
        """P, the training rows that are learned from."""
        return int(self.dataset.record["points"])

    @property
    def padded(self) -> tuple[str, ...]:
        """Inputs that are padded, see :class:`EvaluationBatch`."""
        return ()

    def steps(self, batch_size: int, *, seed: int, epoch: int) -> list[np.ndarray]:
        """The points of each step of an epoch, in an order that seed and epoch decide."""
        order = np.random.default_rng([seed, epoch]).permutation(self.points)
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def training_batches(
        self, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world: int = 1
    ) -> Sequence[Batch]:
        """One epoch."""
        return _Steps(self, self.steps(batch_size, seed=seed, epoch=epoch), rank, world)

    def scoring_batches(self, first: int, stop: int, batch_size: int) -> Iterator[Batch]:
        """Training points in their order."""
        size = batch_size * self.rows_a_sample
        for start in range(first, stop, size):
            points = np.arange(start, min(start + size, stop))
            yield self.batch(points, len(points))

    def calibration(self, count: int, seed: int) -> list[Feed]:
        """Training points, drawn without repetition."""
        drawn = self.rows_of(np.random.default_rng(seed).permutation(self.points)[:count])
        starts = range(0, len(drawn), _CALIBRATION_BATCH)
        return [self.feed_of(drawn[start : start + _CALIBRATION_BATCH]) for start in starts]

    def held_out(self, split: Split) -> int:
        """Rows of a split."""
        return len(self.dataset.rows(split))

    def evaluation_batches(self, split: Split, batch_size: int) -> Iterator[EvaluationBatch]:
        """The rows of a split in the order of the data set."""
        rows = self.dataset.rows(split)
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            feed = self.feed_of(chosen)
            yield EvaluationBatch(
                self.inputs_of(feed),
                feed,
                torch.from_numpy(self.targets_of(chosen)),
                torch.from_numpy(self.drawn_with(chosen)),
                padded=self.padded,
            )

    def judge(self, scorer: Scorer, batches: Iterator[EvaluationBatch]) -> Judgement:
        """The scores of all rows against what was observed in them."""
        parts = []
        for batch in batches:
            with torch.inference_mode():
                parts.append((scorer(batch).numpy(), batch.targets.numpy(), batch.users.numpy()))
        scores, targets, drawn = (np.concatenate(column) for column in zip(*parts, strict=True))
        return self.judgement(scores, targets, drawn)

    def batch(self, points: np.ndarray, step_points: int) -> Batch:
        """Training points as one batch of a step of ``step_points``."""
        rows = self.rows_of(points)
        return Batch(
            inputs=self.inputs_of(self.feed_of(rows)),
            targets=torch.from_numpy(self.targets_of(rows)),
            points=torch.from_numpy(points),
            step_points=step_points,
        )


class _Steps(Sequence[Batch]):
    """One epoch's batches, the share of one device, each made when it is asked for."""

    def __init__(self, task: RowwiseTask, steps: list[np.ndarray], rank: int, world: int) -> None:
        self._task, self._steps, self._rank, self._world = task, steps, rank, world

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]
        step = self._steps[index]
        return self._task.batch(step[self._rank :: self._world], len(step))
