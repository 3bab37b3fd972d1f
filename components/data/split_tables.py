"""Interactions that come with a split: three tables, one's own or those of a published set.

They tell no times. The number of its part (0 for training, 1 for validation, 2 for test) stands in the place of an
event's time, in seconds: that is what ``prepare.split: given`` reads.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from components.data.dataset import SPLITS
from components.data.downloads import DOWNLOADS_VARIABLE, downloads_folder
from components.data.published import read_entry
from components.data.rows import RawRows, SourceFile
from components.data.tables import Table
from components.errors import DataError, IntegrityError
from components.settings.base import Settings
from components.settings.split_source import PartColumns, PartSource, SplitSource, SplitTableSource


class SplitFile(Settings):
    """A file of a published set."""

    file: str
    """Its name; with ``.gz`` it may be compressed."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Digest of what it holds, uncompressed: compressed forms are not the same everywhere."""


class SplitEntry(Settings):
    """One public set with a split, as ``components/data/catalogue/<name>.yaml`` describes it."""

    name: str
    """Name of the set; the source's ``kind``."""
    title: str
    """What it is called."""
    home: str
    """The page of those who made the split."""
    original: str
    """The page of those who published the interactions."""
    licence: str
    """What it may be used for."""
    citation: str
    """What its publishers ask to be cited."""
    columns: PartColumns = PartColumns()
    """Which column holds what."""
    train: SplitFile
    """What is learned from."""
    validation: SplitFile
    """What decides when to stop."""
    test: SplitFile
    """What measures the result."""


class SplitTables:
    """Three tables as a source.

    Args:
        settings: Where, and which column holds what.
        root: What a relative path starts from.
        about: What the source says of itself.

    Raises:
        DataError: A table is missing.
    """

    time_unit = "seconds"

    def __init__(self, settings: SplitTableSource, root: Path, about: dict[str, Any] | None = None) -> None:
        self._about = about or {}
        self._parts = [
            Table(PartSource(path=f"{settings.path}/{getattr(settings, name)}", columns=settings.columns), root)
            for name in SPLITS
        ]

    def about(self) -> dict[str, Any]:
        """Nothing, unless it is a published set."""
        return self._about

    def files(self) -> list[SourceFile]:
        """The three tables."""
        return [file for part in self._parts for file in part.files()]

    def batches(self) -> Iterator[RawRows]:
        """All rows, the training ones first.

        Raises:
            DataError: A table is damaged, or lacks a column.
        """
        for number, part in enumerate(self._parts):
            for batch in part.batches():
                yield batch._replace(rows=batch.rows.with_columns(timestamp=pl.lit(number, dtype=pl.Int64)))

    def titles(self) -> pl.DataFrame | None:
        """The first title of each item, when a column holds titles."""
        found = [titles for part in self._parts if (titles := part.titles()) is not None]
        return pl.concat(found).unique("id", keep="first", maintain_order=True) if found else None


def open_split(settings: SplitSource, root: Path) -> SplitTables:
    """One's own tables, or a published set from the files that somebody has put there.

    Args:
        settings: ``scenarios.<scenario>.source``.
        root: The checkout, which relative paths start from.

    Raises:
        DataError: A file is missing or cannot be read.
        IntegrityError: It is not the published one.
    """
    if isinstance(settings, SplitTableSource):
        return SplitTables(settings, root)
    entry = read_entry(root / settings.path, SplitEntry)
    folder = downloads_folder() / entry.name if settings.folder is None else root / settings.folder
    found = {name: _checked(folder, getattr(entry, name), entry) for name in SPLITS}
    about = entry.model_dump(include={"title", "home", "licence", "citation"})
    tables = SplitTableSource(
        kind="split-table",
        path=str(folder),
        columns=entry.columns,
        train=found["train"],
        validation=found["validation"],
        test=found["test"],
    )
    return SplitTables(tables, root, about)


def _checked(folder: Path, wanted: SplitFile, entry: SplitEntry) -> str:
    """The name of the file that is there, with or without ``.gz``."""
    names = [wanted.file, f"{wanted.file}.gz"]
    name = next((name for name in names if (folder / name).is_file()), None)
    if name is None:
        raise DataError(
            f"{folder} has no file {wanted.file} or {wanted.file}.gz of {entry.title}",
            f"Nobody publishes this split in a form that can be fetched and read without running its code: docs/"
            f"citeulike.md says what the files are. Put them there, or set source.folder or {DOWNLOADS_VARIABLE}.",
        )
    try:
        content = (folder / name).read_bytes()
        content = gzip.decompress(content) if name.endswith(".gz") else content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{folder / name} cannot be read: {error}", "Fetch it again.") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != wanted.sha256:
        raise IntegrityError(
            f"{folder / name} is not the published file: SHA-256 {digest}, expected {wanted.sha256}",
            "Fetch it again; files of one's own are read by a source of kind split-table.",
        )
    return name
