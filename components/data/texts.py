"""Texts with a label: what is read of them, and their prepared data set.

A prepared set of texts is a set of points (:mod:`components.data.points`) with ``text`` and ``tokens`` (list of int32,
at least one), and with ``tokenizer.json``: what made tokens of the texts, as the ``tokenizers`` library reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from components.data.dataset import SPLITS, Split
from components.data.points import PointDataset, Splits, read_ingested, read_points
from components.data.rows import SourceFile
from components.data.stored import stored_table
from components.storage.digests import array_digest, file_digest, record_digest

TOKENIZER_FILE = "tokenizer.json"


class RawTexts(NamedTuple):
    """Texts as a source holds them.

    Attributes:
        table: ``text`` and ``label`` text, null where there is none; ``is_test`` bool; ``file`` text and ``row`` int64
            (number in its file, from 1), for messages.
        has_test: Whether the source itself keeps texts apart for a test.
        about: What the source says of itself.
        files: What was read.
    """

    table: pl.DataFrame
    has_test: bool
    about: Mapping[str, Any] = {}
    files: Sequence[SourceFile] = ()


@dataclass(frozen=True)
class TextDataset(PointDataset):
    """All texts of all splits as tokens.

    Attributes:
        tokens: ``(T,)`` int32, of all texts one after the other.
        offsets: ``(N + 1,)`` int64, where the tokens of each text begin.
    """

    tokens: np.ndarray
    offsets: np.ndarray

    def tokens_of(self, row: int) -> np.ndarray:
        """``(length,)`` int32."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    @cached_property
    def all_texts(self) -> pl.Series:
        """``(N,)`` text, in the order of the rows."""
        return pl.concat([stored_table(self.folder / f"{name}.parquet")["text"] for name in SPLITS])

    def texts(self, split: Split) -> pl.Series:
        """The texts of a split in the order of its rows."""
        return self.all_texts.gather(self.rows(split))


def content_digest(texts: TextDataset, ids: list[str], tokenizer: str) -> str:
    """SHA-256 over what a set of texts says, whatever the Parquet writer made of it.

    Args:
        texts: Its arrays; the record is not looked at.
        ids: The labels.
        tokenizer: SHA-256 of ``tokenizer.json``.
    """
    arrays = (texts.tokens, texts.offsets, texts.label.astype(np.int32), texts.split)
    return record_digest(
        {"arrays": [array_digest(array) for array in arrays], "ids": record_digest(ids), "tokenizer": tokenizer}
    )


def texts_digest(table: pl.DataFrame) -> str:
    """SHA-256 over checked texts, in order."""
    return record_digest({name: record_digest(table[name].to_list()) for name in ("text", "label", "is_test")})


def read_texts(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """What ingest wrote of a source of texts; see :func:`components.data.points.read_ingested`."""
    return read_ingested(folder, "texts", {"text"}, texts_digest)


def read_text_dataset(folder: Path) -> TextDataset:
    """A prepared set of texts; see :func:`components.data.points.read_points`."""
    return read_points(folder, "texts", _of_splits)


def _of_splits(read: Splits) -> tuple[TextDataset, str]:
    tokens = pl.concat([table["tokens"] for table in read.tables])
    dataset = TextDataset(
        read.record,
        read.label,
        read.split,
        read.folder,
        tokens=tokens.explode().to_numpy().astype(np.int32),
        offsets=np.concatenate([[0], tokens.list.len().to_numpy().astype(np.int64).cumsum()]),
    )
    return dataset, content_digest(dataset, read.ids, file_digest(read.folder / TOKENIZER_FILE))
