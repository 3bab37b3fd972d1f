"""What all tasks have in common whose points are things with one of a few labels, whatever a network sees of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import polars as pl
import torch

from components.data.dataset import Split
from components.tasks.batch import Batch, EvaluationBatch, Feed, Scorer
from components.tasks.beyond import Population
from components.tasks.contract import Baseline, Judgement, LossFamily, Measure, Strata, Task
from components.tasks.probabilities import Accuracy, calibration_error, log_probabilities


class LabelledDataset(Protocol):
    """A prepared data set of things with a label, training points first."""

    @property
    def record(self) -> dict[str, Any]:
        """The content of ``dataset.json``."""

    @property
    def digest(self) -> str:
        """SHA-256 over the content."""

    @property
    def label(self) -> np.ndarray:
        """``(N,)`` int64."""

    @property
    def catalogue(self) -> pl.DataFrame:
        """The labels: ``item``, ``id``, ``title``, ``train_events``."""

    def rows(self, split: Split) -> np.ndarray:
        """Row numbers of a split's points, ascending."""


class LabelledTask(Task):
    """Batches and judgements of them; a subclass says what a network sees of a row.

    A point is a row of the data set: training rows stand first.
    """

    loss: ClassVar[LossFamily] = "softmax"
    best_of = 1
    noun: ClassVar[str] = "sample"
    """What one point is."""
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("accuracy", "accuracy"),
        Measure("log_loss", "log loss"),
        Measure("calibration_error", "calibration error"),
    )

    dataset: LabelledDataset

    @abstractmethod
    def feed_of(self, rows: np.ndarray) -> Feed:
        """What a network sees of these rows of the data set."""

    @property
    def outcomes(self) -> int:
        """K, the labels."""
        return int(self.dataset.record["items"])

    @property
    def outcome_ids(self) -> list[str]:
        """The labels as the source wrote them: by value where they are numbers, else by text."""
        return [str(name) for name in self.dataset.catalogue["id"]]

    @property
    def outcome_counts(self) -> np.ndarray:
        """``(K,)`` training points of each label."""
        return self.label_counts

    @property
    @abstractmethod
    def values(self) -> np.ndarray:
        """``(N, D)`` numbers that say what the points are like, for measuring drift."""

    @property
    def points(self) -> int:
        """P, the training rows."""
        return int(self.dataset.record["points"])

    @property
    def label_counts(self) -> np.ndarray:
        """``(labels,)`` int64, training points of each label."""
        return np.bincount(self.dataset.label[self.dataset.rows("train")], minlength=self.dataset.record["items"])

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
        for start in range(first, stop, batch_size):
            points = np.arange(start, min(start + batch_size, stop))
            yield self.batch(points, len(points))

    def calibration(self, count: int, seed: int) -> list[Feed]:
        """Training points, drawn without repetition."""
        drawn = np.random.default_rng(seed).permutation(self.points)[:count]
        return [self.feed_of(drawn[start : start + 64]) for start in range(0, len(drawn), 64)]

    def held_out(self, split: Split) -> int:
        """Rows of a split."""
        return len(self.dataset.rows(split))

    def evaluation_batches(self, split: Split, batch_size: int) -> Iterator[EvaluationBatch]:
        """The rows of a split in the order of the source."""
        rows = self.dataset.rows(split)
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            feed = self.feed_of(chosen)
            yield EvaluationBatch(
                self.inputs_of(feed),
                feed,
                torch.from_numpy(self.dataset.label[chosen]),
                torch.from_numpy(chosen),
                padded=self.padded,
            )

    @property
    def padded(self) -> tuple[str, ...]:
        """Inputs that are padded, see :class:`EvaluationBatch`."""
        return ()

    def validation_metric(self) -> Accuracy:
        """Accuracy."""
        return Accuracy()

    def judge(self, scorer: Scorer, batches: Iterator[EvaluationBatch]) -> Judgement:
        """The label of greatest probability against the one that was observed."""
        parts = []
        for batch in batches:
            with torch.inference_mode():
                parts.append((scorer(batch).numpy(), batch.targets.numpy(), batch.users.numpy()))
        scores, targets, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
        known = log_probabilities(scores)
        right = (known.argmax(axis=1) == targets).astype(np.float64)
        figures = {
            "accuracy": float(right.mean()),
            "log_loss": float(-known[np.arange(len(targets)), targets].mean()),
            "calibration_error": calibration_error(known, targets),
            **self.further_figures(scores, targets),
        }
        return Judgement(rows, targets, right, figures)

    def further_figures(self, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """What a task measures beside."""
        return {}

    def commonest(self) -> Baseline:
        """The shares of the labels in training, whatever is asked."""
        counts = self.label_counts
        share = np.log((counts + 1.0) / (counts.sum() + len(counts)))
        constant = share[1:] - share[:1] if self.outcomes == 1 else share
        return Baseline("Commonest label", lambda batch: torch.from_numpy(np.tile(constant, (len(batch.targets), 1))))

    def strata(self, judgement: Judgement) -> Strata:
        """By what was observed."""
        labels: list[str] = self.dataset.catalogue["id"].to_list()
        there, bucket = np.unique(judgement.targets, return_inverse=True)
        return Strata(
            f"Label of the {self.noun}",
            f"The share of each label's {self.noun}s that were told.",
            "label that was observed",
            bucket.astype(np.int64),
            tuple(labels[number] for number in there),
        )

    def population(self) -> Population:
        """All rows, whatever split they are in."""
        ids = self.dataset.catalogue["id"]
        nobody = pl.Series([], dtype=pl.String)
        counts = np.bincount(self.dataset.label, minlength=len(ids))
        return Population(ids, counts, nobody, np.zeros(0, dtype=np.int64), self.values)

    def write_labels(self, folder: Path) -> None:
        """Write ``vocabulary.parquet`` into a package: the labels."""
        self.dataset.catalogue.select("item", "id", "title", "train_events").write_parquet(
            folder / "vocabulary.parquet"
        )

    def batch(self, points: np.ndarray, step_points: int) -> Batch:
        """Training points as one batch of a step of ``step_points``."""
        return Batch(
            inputs=self.inputs_of(self.feed_of(points)),
            targets=torch.from_numpy(self.dataset.label[points]),
            points=torch.from_numpy(points),
            step_points=step_points,
        )


class _Steps(Sequence[Batch]):
    """One epoch's batches, the share of one device, each made when it is asked for."""

    def __init__(self, task: LabelledTask, steps: list[np.ndarray], rank: int, world: int) -> None:
        self._task, self._steps, self._rank, self._world = task, steps, rank, world

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]
        step = self._steps[index]
        return self._task.batch(step[self._rank :: self._world], len(step))
