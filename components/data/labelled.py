"""Rows with a label as a prepared data set: users, items, what was known of both, and what came of it.

A folder like that of histories (:mod:`components.data.dataset`), with these columns:

``train.parquet``, ``validation.parquet``, ``test.parquet``
    Sorted by (user, position): ``user`` int32, ``item`` int32 (places in ``users.parquet`` and ``items.parquet``),
    ``position`` int32 (in the user's rows by time), ``timestamp`` int64, ``label`` int8, ``categories`` (C int32, rows
    of the table of embeddings, 0 for nothing) and ``numbers`` (D float32, NaN where one is missing). ``train`` has
    ``point`` int64: 0 to P - 1 in the order of the rows, -1 for a row that is not learned from. ``test`` has
    ``feature.<name>`` text or null: the features as the source wrote them.
``items.parquet``, ``users.parquet``
    ``item``, ``id``, ``title``, ``train_events``; ``user``, ``id``.
``categories.parquet``
    ``feature``, ``value`` text, ``row`` int32: the vocabularies of all features.
``dataset.json``
    Counts, the layout of the features, the split, the source's digest, and ``digest``: SHA-256 over the content.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components.data.dataset import RECORD_FILE, SPLITS, Split
from components.data.features import in_column_order
from components.data.rows import FEATURE
from components.errors import DataError, IntegrityError
from components.storage.atomic import read_json
from components.storage.digests import array_digest, record_digest

COLUMNS = ("user", "item", "position", "timestamp", "label", "split", "point")


@dataclass(frozen=True)
class LabelledDataset:
    """All rows of all users in flat arrays, sorted by (user, position).

    Attributes:
        record: The content of ``dataset.json``.
        user, item: ``(N,)`` int32.
        timestamp: ``(N,)`` int64, microseconds since 1970.
        label: ``(N,)`` int8, 0 or 1.
        split: ``(N,)`` int8, 0 for training, 1 for validation, 2 for test rows.
        point: ``(N,)`` int64, -1 for rows that are not learned from.
        categories: ``(N, C)`` int32.
        numbers: ``(N, D)`` float32.
        written: ``feature.<name>`` of the test rows, text or null, ``(T, features)``.
        folder: Where it was read from.
    """

    record: dict[str, Any]
    user: np.ndarray
    item: np.ndarray
    timestamp: np.ndarray
    label: np.ndarray
    split: np.ndarray
    point: np.ndarray
    categories: np.ndarray
    numbers: np.ndarray
    written: pl.DataFrame
    folder: Path

    @property
    def digest(self) -> str:
        """SHA-256 over the content."""
        return str(self.record["digest"])

    @property
    def items(self) -> int:
        """Number of items."""
        return int(self.record["items"])

    @property
    def users(self) -> int:
        """Number of users."""
        return int(self.record["users"])

    def rows(self, split: Split) -> np.ndarray:
        """Row numbers of a split, ascending."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    @cached_property
    def learned(self) -> np.ndarray:
        """``(P,)`` the row of each point."""
        return np.flatnonzero(self.point >= 0)

    @cached_property
    def train_counts(self) -> np.ndarray:
        """``(items,)`` int64, training rows of each item."""
        return np.bincount(self.item[self.split == 0], minlength=self.items)

    @cached_property
    def catalogue(self) -> pl.DataFrame:
        """The items: ``item``, ``id``, ``title``, ``train_events``."""
        return table_of(self.folder / "items.parquet")

    @cached_property
    def vocabularies(self) -> pl.DataFrame:
        """The values of all features: ``feature``, ``value``, ``row``."""
        return table_of(self.folder / "categories.parquet")

    @cached_property
    def earlier(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What can be in a history: the rows ``(M,)``, and where the part of each row begins and ends, ``(N,)`` each.

        A row's history are the user's rows of an earlier time; of the very same time is no row that was known.
        """
        history = self.record["features"]["history"]
        counted = self.label == 1 if history and history["events"] == "positive" else np.ones(len(self.user), bool)
        before = np.concatenate([[0], np.cumsum(counted)])
        new_user = np.diff(self.user, prepend=-1) != 0
        new_time = new_user | (np.diff(self.timestamp, prepend=-1) != 0)
        places = np.arange(len(self.user))
        first = np.maximum.accumulate(np.where(new_user, places, 0))
        same = np.maximum.accumulate(np.where(new_time, places, 0))
        return np.flatnonzero(counted), before[first], before[same]


def content_digest(dataset: dict[str, np.ndarray], words: dict[str, list[Any]]) -> str:
    """SHA-256 over what a data set says, whatever the Parquet writer made of it.

    Args:
        dataset: The arrays of :class:`LabelledDataset` by name.
        words: See :func:`words_of`.
    """
    arrays = {name: array_digest(array) for name, array in dataset.items()}
    return record_digest({"arrays": arrays, "words": {name: record_digest(part) for name, part in words.items()}})


def words_of(catalogue: pl.DataFrame, vocabularies: pl.DataFrame, written: pl.DataFrame) -> dict[str, list[Any]]:
    """All that is text in a data set, by what it is of, for :func:`content_digest`."""
    columns = (vocabularies.to_dict(as_series=False), written.to_dict(as_series=False))
    return {"items": catalogue["id"].to_list(), **columns[0], **columns[1]}


def read_labelled_dataset(folder: Path) -> LabelledDataset:
    """Read a prepared data set and check it against its own digest.

    Raises:
        DataError: A file or column is missing.
        IntegrityError: The content is not what the digest says.
    """
    record = read_json(folder / RECORD_FILE)
    tables = [
        table_of(folder / f"{name}.parquet").with_columns(pl.lit(number, dtype=pl.Int8).alias("split"))
        for number, name in enumerate(SPLITS)
    ]
    try:
        record["features"] = in_column_order(record["features"])
        written = tables[-1].select(pl.col(f"^{re.escape(FEATURE)}.*$"))
        tables[-1] = tables[-1].drop(written.columns)
        table = pl.concat(tables, how="diagonal").sort("user", "position").with_columns(pl.col("point").fill_null(-1))
        arrays = {name: table[name].to_numpy() for name in COLUMNS}
        arrays["categories"] = _matrix(table, "categories", record["features"]["columns"], np.int32)
        arrays["numbers"] = _matrix(table, "numbers", len(record["features"]["numbers"]), np.float32)
        position = arrays.pop("position")
        dataset = LabelledDataset(record=record, folder=folder, written=written, **arrays)
        words = words_of(dataset.catalogue, dataset.vocabularies, written)
    except (KeyError, ValueError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{folder} is no prepared data set of rows with a label: {error}", "Run the stage `prepare` again."
        ) from None
    if content_digest({**arrays, "position": position}, words) != dataset.digest:
        raise IntegrityError(
            f"{folder} is not the data set that its record describes", "Run the stage `prepare` again."
        )
    return dataset


def table_of(path: Path) -> pl.DataFrame:
    """A table of a prepared data set.

    Raises:
        DataError: It is missing.
        IntegrityError: It is damaged.
    """
    try:
        return pl.read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing", "Run the stage `prepare` again.") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise IntegrityError(f"{path} is damaged: {error}", "Run the stage `prepare` again.") from None


def _matrix(table: pl.DataFrame, name: str, width: int, kind: Any) -> np.ndarray:
    if not width:
        return np.zeros((len(table), 0), kind)
    return np.ascontiguousarray(table[name].to_numpy().reshape(len(table), width), dtype=kind)
