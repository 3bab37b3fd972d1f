"""The newest events of histories, to be ranked by an earlier model and a new one as the service would.

The targets are the test events of the new model's data that the earlier one has not learned from, nor stopped its
training by. A history is everything that the user did before, in the new data; each model knows the part of it that is
in its vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from components.data.dataset import PreparedDataset, Split
from components.data.times import iso
from components.tasks.beyond import HeldOutOutcomes
from components.tasks.full_ranking import CUTOFF
from components.tasks.unlearned_events import unlearned_events


class HeldOutEvents(HeldOutOutcomes):
    """Targets that both models are scored on, sorted by user and time; worth NDCG@10.

    Attributes:
        cutoff: Items of an answer that count.
        dataset: The new model's.
        rows: ``(T,)`` int64, the row of each target in it.
    """

    cutoff: ClassVar[int] = CUTOFF

    def __init__(self, dataset: PreparedDataset, rows: np.ndarray, dropped: int) -> None:
        self.dataset, self.rows, self.dropped = dataset, rows, dropped
        self.users = dataset.user[rows].astype(np.int64)

    @property
    def span(self) -> tuple[str, str] | None:
        """Times of the oldest and the newest target, ISO 8601; None when there is no target."""
        if not len(self.rows):
            return None
        times = self.dataset.timestamp[self.rows]
        return iso(int(times.min())), iso(int(times.max()))

    def targets(self) -> Iterator[tuple[list[str], str]]:
        """History (item ids, oldest first) and target (item id) of each."""
        ids = self.dataset.catalogue["id"].to_list()
        for row, user in zip(self.rows.tolist(), self.users.tolist(), strict=True):
            history = self.dataset.item[self.dataset.offsets[user] : row]
            yield [ids[item] for item in history], ids[self.dataset.item[row]]

    def requests(self) -> Iterator[Mapping[str, Any]]:
        """The best items, those of the history left out.

        A target that the user has met before is ranked among the items that the user has not met, as ``evaluate`` does.
        """
        for history, target in self.targets():
            seen = set(history)
            if target in seen:
                # Asked with everything that was seen, of which there can be no more than this before the target.
                yield {"history": history, "k": self.cutoff + len(seen), "exclude_seen": False}
            else:
                yield {"history": history, "k": self.cutoff, "exclude_seen": True}

    def values(self, answers: Iterable[Any]) -> np.ndarray:
        """What the place of each target is worth, see :meth:`worth`; 0 beyond the cutoff."""
        worth = np.array([self.worth(rank) for rank in range(self.cutoff)])
        places = self.places(answers)
        return np.where((places >= 0) & (places < self.cutoff), worth[np.minimum(places, self.cutoff - 1)], 0.0)

    def places(self, answers: Iterable[Any]) -> np.ndarray:
        """Among the items that the user has not met before."""
        found = np.full(len(self.rows), -1)
        for number, ((history, target), answer) in enumerate(zip(self.targets(), answers, strict=True)):
            seen = set(history)
            ids = [item.id for item in answer.items if item.id == target or item.id not in seen]
            if target in ids:
                found[number] = ids.index(target)
        return found

    def worth(self, rank: int) -> float:
        """NDCG@10: ``1 / log2(rank + 2)``, with ranks from 0."""
        return float(1 / np.log2(rank + 2))

    def unlearned(self, learned: Collection[str]) -> int:
        """Targets that are unknown to a model, or without a training event."""
        return sum(target not in learned for _, target in self.targets())


def held_out_events(
    new: PreparedDataset, earlier: PreparedDataset | None, kind: type[HeldOutEvents] = HeldOutEvents
) -> HeldOutEvents:
    """The targets. A user's first event is none, since nothing is known of the user before it.

    Args:
        new: Its test events are what is held out.
        earlier: What it was trained on and validated with does not count; None: there is no earlier model.
        kind: Says what a place in the ranking is worth.

    Raises:
        IntegrityError: A table of users is damaged.
    """
    rows = new.rows("test")
    rows = rows[rows > new.offsets[new.user[rows]]]
    left = unlearned_events(new, rows, earlier)
    return kind(new, left, len(rows) - len(left))


def asked_events(dataset: PreparedDataset, split: Split, after: int) -> HeldOutEvents:
    """The events of a split that are later than an instant, in microseconds since 1970, and not a user's first."""
    rows = dataset.rows(split)
    rows = rows[(rows > dataset.offsets[dataset.user[rows]]) & (dataset.timestamp[rows] > after)]
    return HeldOutEvents(dataset, rows, 0)
