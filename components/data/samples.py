"""Samples with a label: what is read of them, how they are checked, and their prepared data set.

A prepared set of samples is a folder like that of histories (:mod:`components.data.dataset`), with other columns:

``train.parquet``, ``validation.parquet``, ``test.parquet``
    ``row`` int64 (number in the source, from 0), ``label`` int32 (place in ``items.parquet``), ``values`` (D numbers,
    float32); ``train`` has ``point`` int64 as well, 0 to P - 1 in the order of the rows.
``items.parquet``
    The labels: ``item`` int32, ``id`` text, ``title`` text or null, ``train_events`` int64.
``dataset.json``
    Counts, shape of a sample, the source's digest, and ``digest``: SHA-256 over the content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from components.data.dataset import RECORD_FILE, SPLITS, Split
from components.data.rows import SourceFile
from components.errors import DataError, IntegrityError
from components.storage.atomic import read_json
from components.storage.digests import array_digest, record_digest


class RawSamples(NamedTuple):
    """Samples as a source holds them.

    Attributes:
        values: ``(N, D)`` floats; NaN where one is missing.
        labels: ``(N,)`` text, null where there is none.
        shape: Of one sample; its product is D.
        names: Of the D values, or of none.
        is_test: ``(N,)`` bool where the source itself keeps samples apart for a test; None where it does not.
        file: Where they come from, for messages; or ``(N,)`` text, where that of each.
        about: ``title`` for people, and ``home`` and ``licence`` where they are known.
        files: What was read.
        faults: Why a sample cannot be used, by its place from 0, where the reader has found it out.
    """

    values: np.ndarray
    labels: pl.Series
    shape: tuple[int, ...]
    names: tuple[str, ...]
    is_test: np.ndarray | None
    file: str | pl.Series
    about: Mapping[str, str] = {"title": "Samples with a label"}
    files: tuple[SourceFile, ...] = ()
    faults: Mapping[int, str] = {}


@dataclass(frozen=True)
class SampleDataset:
    """All samples of all splits, training samples first.

    Attributes:
        record: The content of ``dataset.json``.
        values: ``(N, D)`` float32.
        label: ``(N,)`` int64.
        split: ``(N,)`` int8, 0 for training, 1 for validation, 2 for test samples.
        folder: Where it was read from.
    """

    record: dict[str, Any]
    values: np.ndarray
    label: np.ndarray
    split: np.ndarray
    folder: Path

    @property
    def digest(self) -> str:
        """SHA-256 over the content."""
        return str(self.record["digest"])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.record["shape"])

    def rows(self, split: Split) -> np.ndarray:
        """Row numbers of a split's samples, ascending."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    @cached_property
    def catalogue(self) -> pl.DataFrame:
        """The labels: ``item``, ``id``, ``title``, ``train_events``."""
        return _table(self.folder / "items.parquet")


def content_digest(values: np.ndarray, label: np.ndarray, split: np.ndarray, ids: list[str]) -> str:
    """SHA-256 over what a set of samples says, whatever the Parquet writer made of it."""
    arrays = (values.astype(np.float32), label.astype(np.int32), split.astype(np.int8))
    return record_digest({"arrays": [array_digest(array) for array in arrays], "ids": record_digest(ids)})


def samples_digest(table: pl.DataFrame) -> str:
    """SHA-256 over checked samples, in order."""
    parts = [table["label"].to_list(), None if table["is_test"].null_count() else table["is_test"].to_list()]
    return record_digest({"values": array_digest(values_of(table)), "labels": record_digest(parts)})


def values_of(table: pl.DataFrame) -> np.ndarray:
    """The column ``values`` as ``(N, D)`` float32."""
    return np.ascontiguousarray(table["values"].to_numpy().reshape(len(table), -1), dtype=np.float32)


def read_samples(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """What ingest wrote of a source of samples: samples, labels, and ``source.json``.

    Raises:
        DataError: A file is missing, or it is no source of samples.
        IntegrityError: The samples are not those that ``source.json`` describes.
    """
    record = read_json(folder / "source.json")
    samples, labels = _table(folder / "events.parquet", "ingest"), _table(folder / "items.parquet", "ingest")
    if "values" not in samples.columns:
        raise DataError(f"{folder / 'events.parquet'} holds events, not samples", "Choose another `source` or `task`.")
    if samples_digest(samples) != record["digest"]:
        raise IntegrityError(
            f"{folder / 'events.parquet'} does not hold the samples that source.json describes",
            "Run the stage `ingest` again.",
        )
    return samples, labels, record


def read_sample_dataset(folder: Path) -> SampleDataset:
    """Read a prepared set of samples and check it against its own digest.

    Raises:
        DataError: A file or column is missing.
        IntegrityError: The content is not what the digest says.
    """
    record = read_json(folder / RECORD_FILE)
    tables = [_table(folder / f"{name}.parquet") for name in SPLITS]
    try:
        dataset = SampleDataset(
            record=record,
            values=np.concatenate([values_of(table) for table in tables]),
            label=np.concatenate([table["label"].to_numpy() for table in tables]).astype(np.int64),
            split=np.repeat(np.arange(len(SPLITS), dtype=np.int8), [len(table) for table in tables]),
            folder=folder,
        )
        points = tables[0]["point"].to_numpy()
        ids = dataset.catalogue["id"].to_list()
    except (KeyError, ValueError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{folder} is no prepared set of samples: {error}", "Run the stage `prepare` again.") from None
    sound = content_digest(dataset.values, dataset.label, dataset.split, ids) == dataset.digest
    if not sound or not np.array_equal(points, np.arange(len(points))):
        raise IntegrityError(
            f"{folder} is not the data set that its record describes", "Run the stage `prepare` again."
        )
    return dataset


def _table(path: Path, stage: str = "prepare") -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing", f"Run the stage `{stage}` again.") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise IntegrityError(f"{path} is damaged: {error}", f"Run the stage `{stage}` again.") from None
