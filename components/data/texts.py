"""Texts with a label: what is read of them, and their prepared data set.

A prepared set of texts is a folder like that of samples (:mod:`components.data.samples`), with other columns:

``train.parquet``, ``validation.parquet``, ``test.parquet``
    ``row`` int64 (number in the source, from 0), ``label`` int32 (place in ``items.parquet``), ``text``, ``tokens``
    (list of int32, at least one); ``train`` has ``point`` int64 as well, 0 to P - 1 in the order of the rows.
``items.parquet``
    The labels: ``item`` int32, ``id`` text, ``title`` text or null, ``train_events`` int64.
``tokenizer.json``
    What made tokens of the texts, as the ``tokenizers`` library reads it.
``dataset.json``
    Counts, the source's digest, and ``digest``: SHA-256 over the content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
class TextDataset:
    """All texts of all splits as tokens, training texts first.

    Attributes:
        record: The content of ``dataset.json``.
        tokens: ``(T,)`` int32, of all texts one after the other.
        offsets: ``(N + 1,)`` int64, where the tokens of each text begin.
        label: ``(N,)`` int64.
        split: ``(N,)`` int8, 0 for training, 1 for validation, 2 for test texts.
        folder: Where it was read from.
    """

    record: dict[str, Any]
    tokens: np.ndarray
    offsets: np.ndarray
    label: np.ndarray
    split: np.ndarray
    folder: Path

    @property
    def digest(self) -> str:
        """SHA-256 over the content."""
        return str(self.record["digest"])

    def rows(self, split: Split) -> np.ndarray:
        """Row numbers of a split's texts, ascending."""
        return np.flatnonzero(self.split == SPLITS.index(split))

    def tokens_of(self, row: int) -> np.ndarray:
        """``(length,)`` int32."""
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    @cached_property
    def all_texts(self) -> pl.Series:
        """``(N,)`` text, in the order of the rows."""
        return pl.concat([_table(self.folder / f"{name}.parquet")["text"] for name in SPLITS])

    def texts(self, split: Split) -> pl.Series:
        """The texts of a split in the order of its rows."""
        return self.all_texts.gather(self.rows(split))

    @cached_property
    def catalogue(self) -> pl.DataFrame:
        """The labels: ``item``, ``id``, ``title``, ``train_events``."""
        return _table(self.folder / "items.parquet")


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
    """What ingest wrote of a source of texts: texts, labels, and ``source.json``.

    Raises:
        DataError: A file is missing, or it is no source of texts.
        IntegrityError: The texts are not those that ``source.json`` describes.
    """
    record = read_json(folder / "source.json")
    texts, labels = _table(folder / "events.parquet", "ingest"), _table(folder / "items.parquet", "ingest")
    if not {"text", "label", "is_test"} <= set(texts.columns):
        raise DataError(f"{folder / 'events.parquet'} holds no texts", "Choose another `source` or `task`.")
    if texts_digest(texts) != record["digest"]:
        raise IntegrityError(
            f"{folder / 'events.parquet'} does not hold the texts that source.json describes",
            "Run the stage `ingest` again.",
        )
    return texts, labels, record


def read_text_dataset(folder: Path) -> TextDataset:
    """Read a prepared set of texts and check it against its own digest.

    Raises:
        DataError: A file or column is missing.
        IntegrityError: The content is not what the digest says.
    """
    record = read_json(folder / RECORD_FILE)
    tables = [_table(folder / f"{name}.parquet") for name in SPLITS]
    try:
        tokens = pl.concat([table["tokens"] for table in tables])
        dataset = TextDataset(
            record=record,
            tokens=tokens.explode().to_numpy().astype(np.int32),
            offsets=np.concatenate([[0], tokens.list.len().to_numpy().astype(np.int64).cumsum()]),
            label=np.concatenate([table["label"].to_numpy() for table in tables]).astype(np.int64),
            split=np.repeat(np.arange(len(SPLITS), dtype=np.int8), [len(table) for table in tables]),
            folder=folder,
        )
        points = tables[0]["point"].to_numpy()
        ids = dataset.catalogue["id"].to_list()
        tokenizer = file_digest(folder / TOKENIZER_FILE)
    except (KeyError, ValueError, OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{folder} is no prepared set of texts: {error}", "Run the stage `prepare` again.") from None
    sound = content_digest(dataset, ids, tokenizer) == dataset.digest
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
