"""Task ``binary``: the values of a sample say yes or no."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from components.data.samples import SampleDataset
from components.errors import DataError
from components.tasks.contract import Measure, Wording
from components.tasks.probabilities import area_under_curve
from components.tasks.samples import SampleTask


class Binary(SampleTask):
    """One logit a sample: the log of the odds of the second of two labels."""

    name = "binary"
    loss = "bernoulli"
    measures: ClassVar[tuple[Measure, ...]] = (*SampleTask.measures, Measure("auc", "AUC"))

    def __init__(self, dataset: SampleDataset, max_length: int = 0) -> None:
        super().__init__(dataset, max_length)
        if dataset.record["items"] != 2:
            labels = ", ".join(repr(name) for name in dataset.catalogue["id"].head(5))
            raise DataError(f"a yes or no has two labels, and these samples have {labels}", "Choose another task.")

    @property
    def outcomes(self) -> int:
        """Yes."""
        return 1

    @property
    def outcome_ids(self) -> list[str]:
        """The second label: by value where labels are numbers, else by text."""
        return [str(self.dataset.catalogue["id"][1])]

    @property
    def outcome_counts(self) -> np.ndarray:
        """``(1,)`` training samples of the second label."""
        return self.label_counts[1:]

    def further_figures(self, scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        """Area under the curve."""
        return {"auc": area_under_curve(scores[:, 0], targets)}

    def wording(self) -> Wording:
        """For people."""
        return Wording(
            title="Binary classification",
            tags=("tabular-classification",),
            summary=f"A classifier of {len(self.sizes['mean'])} values",
            use="recstill predict PACKAGE --request '{\"values\": [...]}'",
            tested="labels of samples that no training has seen",
            users="samples",
            requests="test samples",
            limits="It has learned from samples like those it was given, and says nothing sensible of others.",
        )
