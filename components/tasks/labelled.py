"""What all tasks have in common whose points are things with one of a few labels, whatever a network sees of them."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import polars as pl
import torch

from components.tasks.beyond import Population
from components.tasks.contract import Baseline, Judgement, LossFamily, Measure, Strata
from components.tasks.probabilities import Accuracy, calibration_error, log_probabilities
from components.tasks.rowwise import RowDataset, RowwiseTask


class LabelledDataset(RowDataset, Protocol):
    """A prepared data set of things with a label, training points first."""

    @property
    def label(self) -> np.ndarray:
        """``(N,)`` int64."""

    @property
    def catalogue(self) -> pl.DataFrame:
        """The labels: ``item``, ``id``, ``title``, ``train_events``."""


class LabelledTask(RowwiseTask):
    """Judgements of them; a subclass says what a network sees of a row.

    A point is a row of the data set: training rows stand first.
    """

    loss: ClassVar[LossFamily] = "softmax"
    noun: ClassVar[str] = "sample"
    """What one point is."""
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("accuracy", "accuracy"),
        Measure("log_loss", "log loss"),
        Measure("calibration_error", "calibration error"),
    )

    dataset: LabelledDataset

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
    def label_counts(self) -> np.ndarray:
        """``(labels,)`` int64, training points of each label."""
        return np.bincount(self.dataset.label[self.dataset.rows("train")], minlength=self.dataset.record["items"])

    def targets_of(self, rows: np.ndarray) -> np.ndarray:
        """The labels."""
        return self.dataset.label[rows]

    def validation_metric(self) -> Accuracy:
        """Accuracy."""
        return Accuracy()

    def judgement(self, scores: np.ndarray, targets: np.ndarray, drawn: np.ndarray) -> Judgement:
        """The label of greatest probability against the one that was observed."""
        known = log_probabilities(scores)
        right = (known.argmax(axis=1) == targets).astype(np.float64)
        figures = {
            "accuracy": float(right.mean()),
            "log_loss": float(-known[np.arange(len(targets)), targets].mean()),
            "calibration_error": calibration_error(known, targets),
            **self.further_figures(scores, targets),
        }
        return Judgement(drawn, targets, right, figures)

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
