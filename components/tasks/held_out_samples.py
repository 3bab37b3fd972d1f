"""Test samples that an earlier model has not learned from, told by its package and by the new one's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from components.data.samples import SampleDataset
from components.tasks.beyond import HeldOut


class HeldOutSamples(HeldOut):
    """Samples that both models are asked about.

    Attributes:
        dataset: The new model's.
        rows: ``(T,)`` int64, the row of each sample in it.
    """

    def __init__(self, dataset: SampleDataset, rows: np.ndarray, dropped: int) -> None:
        self.dataset, self.rows, self.dropped = dataset, rows, dropped
        self.users = rows.astype(np.int64)

    def requests(self) -> Iterator[Mapping[str, Any]]:
        """The values."""
        for row in self.rows:
            yield {"values": self.dataset.values[row].tolist()}

    def values(self, answers: Iterable[Any]) -> np.ndarray:
        """1 where the likeliest label is the one that was observed, else 0."""
        pairs = zip(self._labels(), answers, strict=True)
        return np.array([answer.labels[0] == label for label, answer in pairs], dtype=np.float64)

    def unlearned(self, learned: Collection[str]) -> int:
        """Samples of a label that a model has never seen."""
        return sum(label not in learned for label in self._labels())

    def _labels(self) -> list[str]:
        ids: list[str] = self.dataset.catalogue["id"].to_list()
        return [ids[label] for label in self.dataset.label[self.rows]]


def held_out_samples(new: SampleDataset, earlier: SampleDataset | None) -> HeldOutSamples:
    """The test samples of ``new`` that ``earlier`` has not been trained on or validated with; None: all of them."""
    rows = new.rows("test")
    if earlier is None:
        return HeldOutSamples(new, rows, 0)
    taught = {sample.tobytes() for sample in earlier.values[earlier.split != 2]}
    left = np.array([row for row in rows if new.values[row].tobytes() not in taught], dtype=np.int64)
    return HeldOutSamples(new, left, len(rows) - len(left))
