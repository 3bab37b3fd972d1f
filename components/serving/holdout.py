"""Champion and challenger on the same newest events, each through its package as it is served.

The targets are the test events of the challenger's data that the champion has not learned from, nor stopped its
training by. A history is everything that the user did before, in the challenger's data; each model knows the part of it
that is in its vocabulary.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from components.data.dataset import PreparedDataset
from components.data.people import user_ids
from components.data.times import iso
from components.serving.package_folder import VOCABULARY, PackageFolder
from components.serving.predictor import Predictor

CUTOFF = 10


@dataclass(frozen=True)
class Holdout:
    """Targets that both models are scored on, sorted by user and time.

    Attributes:
        dataset: The challenger's.
        rows: ``(T,)`` int64, the row of each target in it.
        dropped: Test events that were left out, since the champion has trained on them or was validated with them.
    """

    dataset: PreparedDataset
    rows: np.ndarray
    dropped: int

    @property
    def users(self) -> np.ndarray:
        """``(T,)`` int64, the user of each target."""
        return self.dataset.user[self.rows].astype(np.int64)

    @property
    def span(self) -> tuple[str, str] | None:
        """Times of the oldest and the newest target, ISO 8601; None when there is no target."""
        if not len(self.rows):
            return None
        times = self.dataset.timestamp[self.rows]
        return iso(int(times.min())), iso(int(times.max()))

    def requests(self) -> Iterator[tuple[list[str], str]]:
        """History (item ids, oldest first) and target (item id) of each."""
        ids = self.dataset.catalogue["id"].to_list()
        for row, user in zip(self.rows.tolist(), self.users.tolist(), strict=True):
            history = self.dataset.item[self.dataset.offsets[user] : row]
            yield [ids[item] for item in history], ids[self.dataset.item[row]]


class Scored(NamedTuple):
    """One model on the targets.

    Attributes:
        ndcg: ``(T,)`` float64, NDCG@10 of each target: ``1 / log2(rank + 2)`` within the first ten, else 0.
        cold: Targets that the model has never learned from: unknown to it, or without a training event.
    """

    ndcg: np.ndarray
    cold: int


def holdout_of(challenger: PreparedDataset, champion: PreparedDataset | None) -> Holdout:
    """The targets. A user's first event is none, since nothing is known of the user before it.

    Args:
        challenger: Its test events are what is held out.
        champion: What it was trained on and validated with does not count; None: there is no champion.

    Raises:
        IntegrityError: A table of users is damaged.
    """
    rows = challenger.rows("test")
    rows = rows[rows > challenger.offsets[challenger.user[rows]]]
    if champion is None:
        return Holdout(challenger, rows, 0)
    taught = _events(champion, np.flatnonzero(champion.split != 2)).drop("row")
    left = _events(challenger, rows).join(taught, on=["user", "item", "timestamp"], how="anti")["row"].sort().to_numpy()
    return Holdout(challenger, left, len(rows) - len(left))


def score(package: Path, holdout: Holdout) -> Scored:
    """Rank the whole catalogue for each target as the service would, items of the history left out.

    A target that the user has met before is ranked among the items that the user has not met, as ``evaluate`` does.

    Args:
        package: Folder of the model's package.
        holdout: The targets.

    Raises:
        DataError: It is no package.
        IntegrityError: A file of it is missing or damaged.
    """
    predictor = Predictor(package)
    vocabulary = pl.read_parquet(io.BytesIO(PackageFolder(package).read(VOCABULARY)))
    learned = set(vocabulary.filter(pl.col("train_events") > 0)["id"].to_list())
    ndcg = np.zeros(len(holdout.rows))
    cold = 0
    for number, (history, target) in enumerate(holdout.requests()):
        cold += target not in learned
        rank = _rank(predictor, history, target)
        if rank is not None:
            ndcg[number] = 1 / np.log2(rank + 2)
    return Scored(ndcg, cold)


def _rank(predictor: Predictor, history: list[str], target: str) -> int | None:
    """Place of the target from 0; None when it is not among the first ten."""
    seen = set(history)
    if target in seen:
        # Asked with everything that was seen, of which there can be no more than this before the target.
        ranked = predictor.recommend(history, CUTOFF + len(seen), exclude_seen=False).items
        ids = [item.id for item in ranked if item.id == target or item.id not in seen][:CUTOFF]
    else:
        ids = [item.id for item in predictor.recommend(history, CUTOFF).items]
    return ids.index(target) if target in ids else None


def _events(dataset: PreparedDataset, rows: np.ndarray) -> pl.DataFrame:
    """``user`` and ``item`` in the source's words, ``timestamp``, and ``row``."""
    return pl.DataFrame(
        {
            "user": user_ids(dataset).gather(dataset.user[rows]),
            "item": dataset.catalogue["id"].gather(dataset.item[rows]),
            "timestamp": dataset.timestamp[rows],
            "row": rows,
        }
    )
