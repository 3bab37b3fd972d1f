"""The newest rows of a log, whose outcome an earlier model and a new one are asked for as the service would."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from components.data.labelled import LabelledDataset
from components.data.people import user_ids
from components.data.rows import FEATURE
from components.data.times import iso
from components.tasks.beyond import HeldOut
from components.tasks.probability_of_yes import influences
from components.tasks.unlearned_events import unlearned_events

ITEM, USER, HISTORY = "item", "user", "history"


class HeldOutRows(HeldOut):
    """Rows that both models are asked about, sorted by user and time, each with the history that it had.

    Attributes:
        dataset: The new model's.
        rows: ``(T,)`` int64, the row of each point in it.
        window: Events of a history that are sent: the newest ones, and as many of the newest that came to a yes.
        features: Columns that are sent; None: every one that the source has.
    """

    def __init__(
        self,
        dataset: LabelledDataset,
        rows: np.ndarray,
        dropped: int,
        window: int,
        features: Collection[str] | None = None,
    ) -> None:
        self.dataset, self.rows, self.dropped = dataset, rows, dropped
        self.window, self.features = window, features
        self.users = dataset.user[rows].astype(np.int64)

    @property
    def span(self) -> tuple[str, str] | None:
        """Times of the oldest and the newest row, ISO 8601; None when there is none."""
        if not len(self.rows):
            return None
        times = self.dataset.timestamp[self.rows]
        return iso(int(times.min())), iso(int(times.max()))

    def for_package(self, signature: Mapping[str, Any]) -> HeldOutRows:
        """With the features that the package reads: one may have learned from other columns than the other."""
        layout = signature["features"]
        features = {*layout["single"], *layout["bags"], *layout["numbers"]} - {*layout["privileged"]}
        return HeldOutRows(self.dataset, self.rows, self.dropped, self.window, features)

    def requests(self) -> Iterator[Mapping[str, Any]]:
        """Item, user, features as the source wrote them, and what came before."""
        dataset = self.dataset
        items: list[str] = dataset.catalogue["id"].to_list()
        users: list[str] = user_ids(dataset).to_list()
        names = {name.removeprefix(FEATURE): name for name in dataset.written.columns}
        sent = {short: name for short, name in names.items() if self.features is None or short in self.features}
        columns = {short: dataset.written[name].to_list() for short, name in sent.items()}
        places = np.searchsorted(dataset.rows("test"), self.rows)
        for row, place in zip(self.rows.tolist(), places.tolist(), strict=True):
            known = {name: values[place] for name, values in columns.items()}
            events = self._before(row)
            history = [{ITEM: items[dataset.item[event]], "label": int(dataset.label[event])} for event in events]
            yield {**known, ITEM: items[dataset.item[row]], USER: users[dataset.user[row]], HISTORY: history}

    def values(self, answers: Iterable[Any]) -> np.ndarray:
        """What each row adds to the area under the curve; see :func:`influences`."""
        scores = np.array([answer.probability for answer in answers])
        return influences(scores, self.dataset.label[self.rows]) if len(scores) else scores

    def unlearned(self, learned: Collection[str]) -> int:
        """Rows of an item that a model has never learned from."""
        items: list[str] = self.dataset.catalogue["id"].to_list()
        return sum(items[item] not in learned for item in self.dataset.item[self.rows])

    def _before(self, row: int) -> np.ndarray:
        """Rows of the user of an earlier time, oldest first, as far as a model may read them."""
        dataset = self.dataset
        first = np.searchsorted(dataset.user, dataset.user[row], side="left")
        stop = first + np.searchsorted(dataset.timestamp[first:row], dataset.timestamp[row], side="left")
        events = np.arange(first, stop)
        yes = dataset.label[events] == 1
        # A model that reads only what came to a yes has to find as many of these.
        read = (len(events) - np.arange(len(events)) <= self.window) | (
            yes & (yes.sum() - np.cumsum(yes) < self.window)
        )
        found: np.ndarray = events[read]
        return found


def held_out_rows(new: LabelledDataset, earlier: LabelledDataset | None) -> HeldOutRows:
    """The rows. There are none where all that are left have come to the same: of such there is no area under a curve.

    Args:
        new: Its test rows are what is held out.
        earlier: What it was trained on and validated with does not count; None: there is no earlier model.

    Raises:
        IntegrityError: A table of users is damaged.
    """
    rows = new.rows("test")
    left = unlearned_events(new, rows, earlier)
    dropped = len(rows) - len(left)
    if len(np.unique(new.label[left])) < 2:
        left = left[:0]
    records = [new.record] if earlier is None else [new.record, earlier.record]
    histories = [record["features"]["history"] for record in records]
    return HeldOutRows(new, left, dropped, max((history["window"] for history in histories if history), default=0))
