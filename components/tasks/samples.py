"""Tasks over samples with a label: values in, a label with its probability out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.data.preparing_samples import prepare_samples
from components.data.samples import SampleDataset, read_sample_dataset
from components.errors import SettingsError
from components.settings.base import Settings
from components.settings.evaluation import EvaluationSettings
from components.settings.sample_prepare import SamplePrepareSettings
from components.tasks.batch import EvaluationBatch, Feed
from components.tasks.contract import Baseline
from components.tasks.held_out_samples import HeldOutSamples, held_out_samples
from components.tasks.labelled import LabelledTask

_NEVER = -50.0  # A logarithm of a probability, far below any other.


class SampleTask(LabelledTask):
    """What all of them share; the outcomes are the labels, unless a subclass says otherwise.

    The one input is ``values`` ``(B, D)`` float32.
    """

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
    def sizes(self) -> dict[str, Any]:
        """Mean and scale of each value over the training samples, for networks to normalise by."""
        training = self.dataset.values[self.dataset.rows("train")].astype(np.float64)
        scale = training.std(axis=0)
        return {
            "mean": training.mean(axis=0).tolist(),
            "scale": np.where(scale > 0, scale, 1.0).tolist(),
            "shape": list(self.dataset.shape),
        }

    def feed_of(self, rows: np.ndarray) -> Feed:
        """``values``."""
        return {"values": self.dataset.values[rows]}

    def inputs_of(self, feed: Feed) -> tuple[torch.Tensor, ...]:
        """``values``."""
        return (torch.from_numpy(feed["values"]),)

    def baselines(self, settings: EvaluationSettings) -> dict[str, Baseline]:
        """The commonest label, and a linear model on the same values."""
        from sklearn.linear_model import LogisticRegression

        # Moved copies would only blur what has one weight a place.
        rows, sizes = np.arange(self.dataset.record["events_per_split"]["train"]), self.sizes
        mean, scale = (np.array(sizes[name]) for name in ("mean", "scale"))
        linear = LogisticRegression(max_iter=1000)
        linear.fit((self.dataset.values[rows] - mean) / scale, self.dataset.label[rows])

        def of_linear(batch: EvaluationBatch) -> torch.Tensor:
            values = (batch.feed["values"] - mean) / scale
            if self.outcomes == 1:
                return torch.from_numpy(linear.decision_function(values)[:, None])
            # A label that only the test has is never told.
            scores = np.full((len(values), self.outcomes), _NEVER)
            scores[:, linear.classes_] = linear.predict_log_proba(values)
            return torch.from_numpy(np.maximum(scores, _NEVER))

        return {"commonest": self.commonest(), "linear": Baseline("Logistic regression", of_linear)}

    def beyond(self, earlier: SampleDataset | None) -> HeldOutSamples:
        """Test samples; see :func:`components.tasks.held_out_samples.held_out_samples`."""
        return held_out_samples(self.dataset, earlier)

    @property
    def values(self) -> np.ndarray:
        """``(N, D)``, what the samples are like."""
        return self.dataset.values

    def write_package_files(self, folder: Path) -> dict[str, Any]:
        """The labels."""
        self.write_labels(folder)
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
