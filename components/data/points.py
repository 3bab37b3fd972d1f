"""Points with one of a few labels: what a prepared set of them has, whatever a point is, and how it is read back.

A prepared set is a folder like that of histories (:mod:`components.data.dataset`), with other columns:

``train.parquet``, ``validation.parquet``, ``test.parquet``
    ``row`` int64 (number in the source, from 0), ``label`` int32 (place in ``items.parquet``), and what a point is;
    ``train`` has ``point`` int64 as well, 0 to P - 1 in the order of the rows.
``items.parquet``
    The labels: ``item`` int32, ``id`` text, ``title`` text or null, ``train_events`` int64.
``dataset.json``
    Counts, the source's digest, and ``digest``: SHA-256 over the content.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import polars as pl

from components.data.dataset import RECORD_FILE, SPLITS, Split
from components.data.stored import stored_table
from components.errors import DataError, IntegrityError
from components.storage.atomic import read_json, write_json

TRAIN, VALIDATION, TEST = range(3)


@dataclass(frozen=True)
class PointDataset:
    """All points of all splits, training points first; a subclass has what they are.

    Attributes:
        record: The content of ``dataset.json``.
        label: ``(N,)`` int64.
        split: ``(N,)`` int8, 0 for training, 1 for validation, 2 for test points.
        folder: Where it was read from.
    """

    record: dict[str, Any]
    label: np.ndarray
    split: np.ndarray
    folder: Path

    @property
    def digest(self) -> str:
        """SHA-256 over the content."""
        return str(self.record["digest"])

    def rows(self, split: Split) -> np.ndarray:
        """Row numbers of a split's points, ascending."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    @cached_property
    def catalogue(self) -> pl.DataFrame:
        """The labels: ``item``, ``id``, ``title``, ``train_events``."""
        return stored_table(self.folder / "items.parquet")


class Splits(NamedTuple):
    """What is read of any prepared set.

    Attributes:
        record: The content of ``dataset.json``.
        tables: Of training, validation and test.
        label, split, folder: See :class:`PointDataset`.
        ids: The labels.
    """

    record: dict[str, Any]
    tables: list[pl.DataFrame]
    label: np.ndarray
    split: np.ndarray
    folder: Path
    ids: list[str]


Points = TypeVar("Points", bound=PointDataset)


def read_points(folder: Path, what: str, made_of: Callable[[Splits], tuple[Points, str]]) -> Points:
    """Read a prepared set and check it against its own digest.

    Args:
        folder: Of the set.
        what: Its points, in plural, for messages.
        made_of: From the tables to the set, and the digest of what it says.

    Raises:
        DataError: A file or column is missing.
        IntegrityError: The content is not what the digest says.
    """
    record = read_json(folder / RECORD_FILE)
    tables = [stored_table(folder / f"{name}.parquet") for name in SPLITS]
    try:
        label = np.concatenate([table["label"].to_numpy() for table in tables]).astype(np.int64)
        split = np.repeat(np.arange(len(SPLITS), dtype=np.int8), [len(table) for table in tables])
        ids = stored_table(folder / "items.parquet")["id"].to_list()
        dataset, digest = made_of(Splits(record, tables, label, split, folder, ids))
        points = tables[TRAIN]["point"].to_numpy()
    except (KeyError, ValueError, OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{folder} is no prepared set of {what}: {error}", "Run the stage `prepare` again.") from None
    if digest != dataset.digest or not np.array_equal(points, np.arange(len(points))):
        raise IntegrityError(
            f"{folder} is not the data set that its record describes", "Run the stage `prepare` again."
        )
    return dataset


def write_points(folder: Path, table: pl.DataFrame, split: np.ndarray, labels: pl.DataFrame, record: Any) -> None:
    """Write the files of a prepared set into a folder that is there.

    Args:
        folder: Where.
        table: ``row``, ``label``, and what the points are; training points first.
        split: ``(N,)`` of its rows.
        labels: ``id``, ``title``, ``train_events``, in the order of their numbers.
        record: What ``dataset.json`` says.
    """
    for number, name in enumerate(SPLITS):
        part = table.filter(pl.Series(split == number))
        if number == TRAIN:
            part = part.with_columns(point=pl.int_range(len(part), dtype=pl.Int64))
        part.write_parquet(folder / f"{name}.parquet")
    labels.select(pl.int_range(len(labels), dtype=pl.Int32).alias("item"), "id", "title", "train_events").write_parquet(
        folder / "items.parquet"
    )
    write_json(folder / RECORD_FILE, record)


def read_ingested(
    folder: Path, what: str, columns: set[str], digest_of: Callable[[pl.DataFrame], str]
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """What ingest wrote of a source of points: the points, the labels, and ``source.json``.

    Args:
        folder: Where it did.
        what: Its points, in plural, for messages.
        columns: What a table of them has.
        digest_of: SHA-256 over checked points, in order.

    Raises:
        DataError: A file is missing, or it is a source of something else.
        IntegrityError: The points are not those that ``source.json`` describes.
    """
    record = read_json(folder / "source.json")
    events = folder / "events.parquet"
    points, labels = stored_table(events, "ingest"), stored_table(folder / "items.parquet", "ingest")
    if not columns | {"label", "is_test"} <= set(points.columns):
        raise DataError(f"{events} holds no {what}", "Choose another `source` or `task`.")
    if digest_of(points) != record["digest"]:
        raise IntegrityError(
            f"{events} does not hold the {what} that source.json describes", "Run the stage `ingest` again."
        )
    return points, labels, record
