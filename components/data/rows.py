"""Rows as a source holds them, before anything is checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import polars as pl

from components.storage.digests import file_digest

FEATURE = "feature."
"""Before the name of a feature's column."""


class RawRows(NamedTuple):
    """Some neighbouring rows of one file.

    Attributes:
        file: Name of the file, for messages and the quarantine.
        first: Number of the first of these rows in its file, from 1, the header not counted.
        rows: ``user``, ``item``, ``timestamp``, each of whatever type the file has; of a source of rows with a label
            also ``label``; and ``feature.<name>`` for each feature. A source that finds something wrong itself says so
            in ``refused``, text, null where nothing is. Where a line of the file gives several rows, ``line`` is its
            number, and no two rows of one user have the same time.
    """

    file: str
    first: int
    rows: pl.DataFrame


@dataclass(frozen=True)
class SourceFile:
    """A file that events were read from: its name, SHA-256 and size in bytes."""

    name: str
    sha256: str
    bytes: int


class Source(Protocol):
    """Where events come from."""

    time_unit: str

    def about(self) -> dict[str, Any]:
        """What the source says of itself, for reports: title, licence, citation. Empty when it says nothing."""
        ...

    def files(self) -> list[SourceFile]:
        """What was read, in the order in which it was read. Called after ``batches`` has been read to its end."""
        ...

    def batches(self) -> Iterator[RawRows]:
        """All rows, batch by batch, in the order of the source.

        Raises:
            DataError: A file cannot be read, or a column is missing.
        """
        ...

    def titles(self) -> pl.DataFrame | None:
        """Titles of items, ``id`` and ``title`` text, each id once; None when the source has none.

        Called after ``batches`` has been read to its end.
        """
        ...


def source_file(path: Path, name: str | None = None) -> SourceFile:
    """The record of a local file, under its own or another name."""
    return SourceFile(name or path.name, file_digest(path), path.stat().st_size)
