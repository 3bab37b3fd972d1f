"""Samples with a label: what is read of them, how they are checked, and their prepared data set.

A prepared set of samples is a set of points (:mod:`components.data.points`) with ``values`` (D numbers, float32); its
record has the ``shape`` of a sample as well. Where ``prepare.moved_copies`` asks for copies of images, all training
images come first, and after them all again for each move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from components.data.points import PointDataset, Splits, read_ingested, read_points
from components.data.rows import SourceFile
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
class SampleDataset(PointDataset):
    """All samples of all splits.

    Attributes:
        values: ``(N, D)`` float32.
    """

    values: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.record["shape"])


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
    """What ingest wrote of a source of samples; see :func:`components.data.points.read_ingested`."""
    return read_ingested(folder, "samples", {"values"}, samples_digest)


def read_sample_dataset(folder: Path) -> SampleDataset:
    """A prepared set of samples; see :func:`components.data.points.read_points`."""
    return read_points(folder, "samples", _of_splits)


def _of_splits(read: Splits) -> tuple[SampleDataset, str]:
    values = np.concatenate([values_of(table) for table in read.tables])
    dataset = SampleDataset(read.record, read.label, read.split, read.folder, values)
    return dataset, content_digest(values, read.label, read.split, read.ids)
