"""Test texts that an earlier model has not learned from, told by its package and by the new one's."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from components.data.texts import TextDataset
from components.tasks.beyond import HeldOut


class HeldOutTexts(HeldOut):
    """Texts that both models are asked about.

    Attributes:
        dataset: The new model's.
        rows: ``(T,)`` int64, the row of each text in it.
    """

    def __init__(self, dataset: TextDataset, rows: np.ndarray, dropped: int) -> None:
        self.dataset, self.rows, self.dropped = dataset, rows, dropped
        self.users = rows.astype(np.int64)

    @classmethod
    def of(cls, new: TextDataset, earlier: TextDataset | None) -> HeldOutTexts:
        """The test texts of ``new`` that ``earlier`` has not been trained on or validated with; None: all of them."""
        rows = new.rows("test")
        if earlier is None:
            return cls(new, rows, 0)
        taught = {*earlier.texts("train"), *earlier.texts("validation")}
        left = np.array([row for row in rows.tolist() if new.all_texts[row] not in taught], dtype=np.int64)
        return cls(new, left, len(rows) - len(left))

    def requests(self) -> Iterator[Mapping[str, Any]]:
        """The texts."""
        for row in self.rows.tolist():
            yield {"text": self.dataset.all_texts[row]}

    def values(self, answers: Iterable[Any]) -> np.ndarray:
        """1 where the likeliest label is the one that was observed, else 0."""
        pairs = zip(self._labels(), answers, strict=True)
        return np.array([answer.labels[0] == label for label, answer in pairs], dtype=np.float64)

    def unlearned(self, learned: Collection[str]) -> int:
        """Texts of a label that a model has never seen."""
        return sum(label not in learned for label in self._labels())

    def _labels(self) -> list[str]:
        ids: list[str] = self.dataset.catalogue["id"].to_list()
        return [ids[label] for label in self.dataset.label[self.rows]]
