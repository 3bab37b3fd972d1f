"""Tasks over samples with a label: values in, a label with its probability out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch

from components.data.dataset import Split
from components.data.preparing_samples import prepare_samples
from components.data.samples import SampleDataset, read_sample_dataset
from components.errors import SettingsError
from components.settings.base import Settings
from components.settings.evaluation import EvaluationSettings
from components.settings.sample_prepare import SamplePrepareSettings
from components.tasks.batch import Batch, EvaluationBatch, Feed, Scorer
from components.tasks.beyond import Population
from components.tasks.contract import Baseline, Judgement, LossFamily, Measure, Strata, Task
from components.tasks.held_out_samples import HeldOutSamples, held_out_samples
from components.tasks.probabilities import Accuracy, calibration_error, log_probabilities


class SampleTask(Task):
    """What all of them share; the outcomes are the labels, unless a subclass says otherwise.

    The one input is ``values`` ``(B, D)`` float32.
    """

    loss: ClassVar[LossFamily] = "softmax"
    best_of = 1
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("accuracy", "accuracy"),
        Measure("log_loss", "log loss"),
        Measure("calibration_error", "calibration error"),
    )

    dataset: SampleDataset

    @classmethod
    def prepare(cls, ingested: Path, folder: Path, settings: Settings) -> list[str]:
        """Number the labels, split; see :class:`Task`."""
        if not isinstance(settings, SamplePrepareSettings):
            raise SettingsError("`prepare` is not for samples with a label", "Set `prepare.kind: samples`.")
        return prepare_samples(ingested, folder, settings)

    @classmethod
    def read(cls, folder: Path) -> SampleDataset:
        """See :func:`components.data.samples.read_sample_dataset`."""
        return read_sample_dataset(folder)

    def __init__(self, dataset: SampleDataset, max_length: int = 0) -> None:
        self.dataset, self.max_length = dataset, 0

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
        """``(K,)`` training samples of each label."""
        return self.label_counts

    @property
    def points(self) -> int:
        """P, the training samples."""
        return int(self.dataset.record["points"])

    @property
    def sizes(self) -> dict[str, Any]:
        """Mean and scale of each value over the training samples, for networks to normalise by."""
        training = self.dataset.values[self.dataset.rows("train")].astype(np.float64)
        scale = training.std(axis=0)
        return {
            "mean": training.mean(axis=0).tolist(),
            "scale": np.where(scale > 0, scale, 1.0).tolist(),
            "shape": list(self.dataset.shape),
        }

    @property
    def label_counts(self) -> np.ndarray:
        """``(labels,)`` int64, training samples of each label."""
        return np.bincount(self.dataset.label[self.dataset.rows("train")], minlength=self.dataset.record["items"])

    def training_batches(
        self, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world: int = 1
    ) -> Sequence[Batch]:
        """Samples in an order that seed and epoch decide."""
        order = np.random.default_rng([seed, epoch]).permutation(self.points)
        steps = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        return _Steps(self, steps, rank, world)

    def scoring_batches(self, first: int, stop: int, batch_size: int) -> Iterator[Batch]:
        """Training samples stand first in the data set: a point is a row."""
        for start in range(first, stop, batch_size):
            points = np.arange(start, min(start + batch_size, stop))
            yield self._batch(points, len(points))

    def calibration(self, count: int, seed: int) -> list[Feed]:
        """Training samples, drawn without repetition."""
        drawn = np.random.default_rng(seed).permutation(self.points)[:count]
        return [{"values": self.dataset.values[drawn[start : start + 64]]} for start in range(0, len(drawn), 64)]

    def inputs_of(self, feed: Feed) -> tuple[torch.Tensor, ...]:
        """``values``."""
        return (torch.from_numpy(feed["values"]),)

    def held_out(self, split: Split) -> int:
        """Samples of a split."""
        return len(self.dataset.rows(split))

    def evaluation_batches(self, split: Split, batch_size: int) -> Iterator[EvaluationBatch]:
        """The samples of a split in the order of the source."""
        rows = self.dataset.rows(split)
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            feed = {"values": self.dataset.values[chosen]}
            yield EvaluationBatch(
                self.inputs_of(feed), feed, torch.from_numpy(self.dataset.label[chosen]), torch.from_numpy(chosen)
            )

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

    def baselines(self, settings: EvaluationSettings) -> dict[str, Baseline]:
        """The commonest label, and a linear model on the same values."""
        from sklearn.linear_model import LogisticRegression

        rows, sizes = self.dataset.rows("train"), self.sizes
        mean, scale = (np.array(sizes[name]) for name in ("mean", "scale"))
        linear = LogisticRegression(max_iter=1000)
        linear.fit((self.dataset.values[rows] - mean) / scale, self.dataset.label[rows])
        counts = self.label_counts
        share = np.log((counts + 1.0) / (counts.sum() + len(counts)))
        constant = share[1:] - share[:1] if self.outcomes == 1 else share

        def of_linear(batch: EvaluationBatch) -> torch.Tensor:
            found = linear.decision_function((batch.feed["values"] - mean) / scale)
            return torch.from_numpy(found.reshape(len(batch.targets), -1))

        return {
            "commonest": Baseline(
                "Commonest label", lambda batch: torch.from_numpy(np.tile(constant, (len(batch.targets), 1)))
            ),
            "linear": Baseline("Logistic regression", of_linear),
        }

    def strata(self, judgement: Judgement) -> Strata:
        """By what was observed."""
        labels: list[str] = self.dataset.catalogue["id"].to_list()
        there, bucket = np.unique(judgement.targets, return_inverse=True)
        return Strata(
            "Label of the sample",
            "The share of each label's samples that were told.",
            "label that was observed",
            bucket.astype(np.int64),
            tuple(labels[number] for number in there),
        )

    def beyond(self, earlier: SampleDataset | None) -> HeldOutSamples:
        """Test samples; see :func:`components.tasks.held_out_samples.held_out_samples`."""
        return held_out_samples(self.dataset, earlier)

    def population(self) -> Population:
        """All samples, whatever split they are in."""
        ids = self.dataset.catalogue["id"]
        nobody = pl.Series([], dtype=pl.String)
        counts = np.bincount(self.dataset.label, minlength=len(ids))
        return Population(ids, counts, nobody, np.zeros(0, dtype=np.int64), self.dataset.values)

    def write_package_files(self, folder: Path) -> dict[str, Any]:
        """The labels."""
        self.dataset.catalogue.select("item", "id", "title", "train_events").write_parquet(
            folder / "vocabulary.parquet"
        )
        return {
            "meaning": {"values": "the values of each sample", "scores": "a logit an outcome, greater is likelier"},
            "loss": self.loss,
            "values": list(self.dataset.shape),
            "names": self.dataset.record["names"],
        }

    def golden_requests(self, count: int) -> list[Mapping[str, Any]]:
        """Training samples."""
        return [
            {"values": [round(float(value), 6) for value in sample]}
            for feed in self.calibration(count, seed=0)
            for sample in feed["values"]
        ]

    def _batch(self, points: np.ndarray, step_points: int) -> Batch:
        return Batch(
            inputs=(torch.from_numpy(self.dataset.values[points]),),
            targets=torch.from_numpy(self.dataset.label[points]),
            points=torch.from_numpy(points),
            step_points=step_points,
        )


class _Steps(Sequence[Batch]):
    """One epoch's batches, the share of one device, each made when it is asked for."""

    def __init__(self, task: SampleTask, steps: list[np.ndarray], rank: int, world: int) -> None:
        self._task, self._steps, self._rank, self._world = task, steps, rank, world

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]
        step = self._steps[index]
        return self._task._batch(step[self._rank :: self._world], len(step))
