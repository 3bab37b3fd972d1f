"""What tasks have in common whose outcomes are the items of a catalogue, told from events of users."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from components.data.dataset import PreparedDataset, read_dataset
from components.data.people import user_ids
from components.tasks.beyond import Population
from components.tasks.contract import Judgement, Strata, Task
from components.tasks.full_ranking import popularity_strata


class CatalogueTask(Task):
    """K is the catalogue.

    Attributes:
        dataset: Where the events come from.
    """

    dataset: PreparedDataset

    @classmethod
    def read(cls, folder: Path) -> PreparedDataset:
        """See :func:`components.data.dataset.read_dataset`."""
        return read_dataset(folder)

    @property
    def outcomes(self) -> int:
        """K, the size of the catalogue."""
        return self.dataset.items

    @property
    def outcome_ids(self) -> list[str]:
        """The source's item ids."""
        ids: list[str] = self.dataset.catalogue["id"].to_list()
        return ids

    @property
    def outcome_counts(self) -> np.ndarray:
        """``(K,)`` training events of each item."""
        return self.dataset.train_counts

    def strata(self, judgement: Judgement) -> Strata:
        """By popularity of the target."""
        return popularity_strata(judgement.targets, self.dataset.train_counts)

    def population(self) -> Population:
        """All events, whatever split they are in."""
        return Population(
            items=self.dataset.catalogue["id"],
            item_events=np.bincount(self.dataset.item, minlength=self.dataset.items),
            users=user_ids(self.dataset),
            user_events=np.diff(self.dataset.offsets),
        )

    def write_catalogue(self, folder: Path, meaning: dict[str, str]) -> dict[str, Any]:
        """Write the catalogue into a package, and say what goes into the model and comes out of it.

        Args:
            folder: The package.
            meaning: Of each input and of the output, for people.
        """
        self.dataset.catalogue.select("item", "id", "title", "train_events").write_parquet(
            folder / "vocabulary.parquet"
        )
        return {"meaning": meaning, "items": self.outcomes, "k": {"least": 1, "most": self.outcomes}}
