"""The prepared data set: what ``prepare`` writes and every later stage reads.

A folder of Parquet tables and one record:

``train.parquet``, ``validation.parquet``, ``test.parquet``
    Events sorted by (user, position): ``user`` int32 and ``item`` int32 (dense indices from 0), ``position`` int32
    (place in the user's whole history, from 0) and ``timestamp`` int64 (microseconds since 1970, UTC). A user's
    training events come before its validation events, and those before its test events; in a temporal split a user
    may have several of each, or none, and its first event may be a target without history. ``train`` has ``point``
    int64 as well: the stable id of the prediction point whose target is that event, 0 to P - 1 in the order of the
    rows; -1 for a user's first event, which has no history to be predicted from. Where the source says what events
    weigh, all three have ``weight`` float32, above 0.
``items.parquet``
    The vocabulary, sorted by ``item``: ``item`` int32, ``id`` text (the source's id), ``title`` text or null,
    ``train_events`` int64. With ``prepare.item_features`` also ``feature_rows`` (C int32) and ``feature_shares`` (C
    float32), see :class:`components.data.item_features.ItemFeatures`.
``features.parquet``
    With ``prepare.item_features``: what each row of the features' table of embeddings stands for, ``row`` int32,
    ``feature``, ``means``, ``value`` text or null.
``users.parquet``
    ``user`` int32, ``id`` text.
``dataset.json``
    Counts, the split, the source's digest, and ``digest``: SHA-256 over the content (not over the files' bytes).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from components.data.item_features import ItemFeatures, read_item_features
from components.data.stored import stored_table
from components.errors import DataError, IntegrityError
from components.storage.atomic import read_json
from components.storage.digests import array_digest, record_digest

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
RECORD_FILE, FEATURES_FILE = "dataset.json", "features.parquet"


@dataclass(frozen=True)
class PreparedDataset:
    """Whole histories of all users in flat arrays, with the row ranges of each split.

    Attributes:
        record: The content of ``dataset.json``.
        item: ``(E,)`` int32, all events of all users, sorted by (user, position).
        timestamp: ``(E,)`` int64, microseconds since 1970.
        split: ``(E,)`` int8, 0 for training, 1 for validation, 2 for test events.
        offsets: ``(users + 1,)`` int64, where each user's rows begin.
        point: ``(E,)`` int64, the prediction point whose target is this event, -1 where there is none.
        folder: Where it was read from.
        weight: ``(E,)`` float32, what the source says that each event weighs; None where it says nothing.
        item_features: What is known of the items beside which one they are; None where nothing is.
    """

    record: dict[str, Any]
    item: np.ndarray
    timestamp: np.ndarray
    split: np.ndarray
    offsets: np.ndarray
    point: np.ndarray
    folder: Path
    weight: np.ndarray | None = None
    item_features: ItemFeatures | None = None

    @property
    def digest(self) -> str:
        """SHA-256 over the content."""
        return str(self.record["digest"])

    @property
    def items(self) -> int:
        """Size of the catalogue."""
        return int(self.record["items"])

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.offsets) - 1

    @property
    def points(self) -> int:
        """P, the number of training prediction points."""
        return int(self.record["points"])

    @cached_property
    def user(self) -> np.ndarray:
        """``(E,)`` int32, the user of each row."""
        return np.repeat(np.arange(self.users, dtype=np.int32), np.diff(self.offsets))

    def rows(self, split: Split) -> np.ndarray:
        """Row numbers of a split's events, ascending. For validation and test these are the targets."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    @cached_property
    def train_counts(self) -> np.ndarray:
        """``(items,)`` int64, training events of each item: its popularity."""
        return np.bincount(self.item[self.split == 0], minlength=self.items)

    @cached_property
    def catalogue(self) -> pl.DataFrame:
        """The vocabulary: ``item``, ``id``, ``title``, ``train_events``."""
        return stored_table(self.folder / "items.parquet")


def content_digest(
    item: np.ndarray,
    timestamp: np.ndarray,
    split: np.ndarray,
    offsets: np.ndarray,
    ids: list[str],
    *,
    weight: np.ndarray | None = None,
    item_features: ItemFeatures | None = None,
) -> str:
    """SHA-256 over what a data set says, whatever the Parquet writer made of it.

    Args:
        item, timestamp, split, offsets, weight, item_features: The arrays of :class:`PreparedDataset`.
        ids: The source's item ids in the order of the vocabulary.
    """
    arrays = (item.astype(np.int32), timestamp.astype(np.int64), split.astype(np.int8), offsets.astype(np.int64))
    said = {"arrays": [array_digest(array) for array in arrays], "ids": record_digest(ids)}
    if weight is not None:
        said["weight"] = array_digest(weight.astype(np.float32))
    if item_features is not None:
        said["item_features"] = item_features.digests()
    return record_digest(said)


def point_ids(split: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """``(E,)`` int64: 0 to P - 1 for training events that have a history, in the order of the rows, else -1."""
    predicted = split == 0
    predicted[offsets[:-1][np.diff(offsets) > 0]] = False
    return np.where(predicted, np.cumsum(predicted) - 1, -1)


def read_dataset(folder: Path) -> PreparedDataset:
    """Read a prepared data set and check it against its own digest.

    Raises:
        DataError: A file or column is missing, or a table cannot be read.
        IntegrityError: The content is not what the digest says.
    """
    record = read_json(folder / RECORD_FILE)
    tables = [
        stored_table(folder / f"{name}.parquet").with_columns(pl.lit(number, dtype=pl.Int8).alias("split"))
        for number, name in enumerate(SPLITS)
    ]
    described = record.get("item_features") is not None
    table = stored_table(folder / FEATURES_FILE) if described else None
    items = stored_table(folder / "items.parquet")
    try:
        events = pl.concat(tables, how="diagonal").sort("user", "position")
        counts = np.bincount(events["user"].to_numpy(), minlength=int(record["users"]))
        dataset = PreparedDataset(
            record=record,
            item=events["item"].to_numpy(),
            timestamp=events["timestamp"].to_numpy(),
            split=events["split"].to_numpy(),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            point=events["point"].fill_null(-1).to_numpy(),
            folder=folder,
            weight=events["weight"].to_numpy() if "weight" in events.columns else None,
            item_features=None if table is None else read_item_features(items, table),
        )
    except (KeyError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{folder} is not a prepared data set: {error}", "Run the stage `prepare` again.") from None
    arrays = (dataset.item, dataset.timestamp, dataset.split, dataset.offsets)
    found = content_digest(*arrays, items["id"].to_list(), weight=dataset.weight, item_features=dataset.item_features)
    if found != dataset.digest:
        raise IntegrityError(
            f"{folder} is not the data set that its record describes", "Run the stage `prepare` again."
        )
    # Points follow from the split, so the digest covers them; a wrong one would pair soft labels with other events.
    if not np.array_equal(dataset.point, point_ids(dataset.split, dataset.offsets)):
        raise IntegrityError(
            f"{folder}: the ids of its prediction points are damaged", "Run the stage `prepare` again."
        )
    return dataset
