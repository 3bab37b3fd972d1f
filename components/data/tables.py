"""Anyone's own interactions: Parquet or CSV, one file, a folder of them, or a folder of objects in S3."""

from __future__ import annotations

import csv
import gzip
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from components.data.ids import as_ids, is_given
from components.data.rows import FEATURE, RawRows, SourceFile, source_file
from components.errors import DataError
from components.settings.base import nearest
from components.settings.feed_source import FeedTableSource
from components.settings.labelled_source import LabelledTableSource
from components.settings.source import ColumnMapping, TableSource
from components.settings.split_source import PartColumns, PartSource
from components.storage.atomic import clear_disk_errors
from components.storage.object_store import open_store

BATCH_ROWS = 1_000_000
"""Rows that are checked at once."""
_TEXT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
_SUFFIXES = (".parquet", *_TEXT)
_SEPARATORS = (",", "\t", ";", "|")


class _Place(NamedTuple):
    """A file to read: its name for people, and where its bytes are."""

    name: str
    path: Path | None  # None: an object of the store, under `key`.
    key: str = ""


class Table:
    """Files with one interaction a row, in the order of their names.

    Args:
        settings: Where, and which column holds what.
        root: What a relative path starts from.

    Raises:
        DataError: There is nothing to read there.
    """

    def __init__(self, settings: TableSource | LabelledTableSource | FeedTableSource | PartSource, root: Path) -> None:
        self._columns: ColumnMapping | PartColumns = settings.columns
        self._features = () if isinstance(settings, PartSource) else settings.features
        self.time_unit: str = settings.columns.time_unit
        self._bucket = ""
        if settings.path.startswith("s3://"):
            self._bucket = "s3://" + settings.path.removeprefix("s3://").partition("/")[0]
            self._places = _objects(settings.path, self._bucket)
        else:
            self._places = _files(root / settings.path, settings.path)
        self._files: list[SourceFile] = []
        self._titles: list[pl.DataFrame] = []

    def about(self) -> dict[str, Any]:
        """Nothing: a table is only itself."""
        return {}

    def files(self) -> list[SourceFile]:
        """What was read."""
        return self._files

    def batches(self) -> Iterator[RawRows]:
        """All rows, at most ``BATCH_ROWS`` at a time.

        Raises:
            DataError: A file is damaged, or lacks a column of the mapping.
            StorageError: The object store cannot be read.
        """
        self._files, self._titles = [], []
        for place in self._places:
            with self._local(place) as path:
                self._files.append(source_file(path, place.name))
                yield from self._rows(path, place.name)

    def titles(self) -> pl.DataFrame | None:
        """The first title of each item, when the mapping names a column of titles."""
        if self._columns.title is None:
            return None
        return pl.concat(self._titles).unique("id", keep="first", maintain_order=True)

    def _rows(self, path: Path, name: str) -> Iterator[RawRows]:
        wanted = {role: column for role, column in self._columns.model_dump(exclude={"time_unit"}).items() if column}
        wanted |= {f"{FEATURE}{name}": name for name in self._features}
        first = 1
        try:
            table = _scanned(path, list(wanted.values()))
            require_columns(wanted, table.collect_schema().names(), name)
            chosen = table.select(pl.col(column).alias(role) for role, column in wanted.items())
            for batch in chosen.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
                if "title" in batch.columns:
                    titles = pl.DataFrame({"id": as_ids(batch["item"]), "title": batch["title"].cast(pl.String)})
                    given = titles.filter(is_given(titles["id"]) & is_given(titles["title"]))
                    self._titles.append(given.unique("id", keep="first", maintain_order=True))
                yield RawRows(name, first, batch.select([role for role in wanted if role != "title"]))
                first += len(batch)
        except (pl.exceptions.PolarsError, OSError, EOFError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise DataError(
                f"{name} cannot be read: {reason}",
                "It is damaged, or not of the form that its name says. Mend or remove it.",
            ) from None

    @contextmanager
    def _local(self, place: _Place) -> Iterator[Path]:
        if place.path is not None:
            yield place.path
            return
        with tempfile.TemporaryDirectory(prefix="recstill-") as folder:
            path = Path(folder) / Path(place.key).name
            content = open_store(self._bucket).get(place.key)
            with clear_disk_errors(path):
                path.write_bytes(content)
            yield path


def files_below(path: Path, shown: str) -> list[tuple[str, Path]]:
    """The tables in a folder by their names, sorted, or the one file itself.

    Args:
        path: File or folder.
        shown: What to call it in errors.

    Raises:
        DataError: There is nothing to read there.
    """
    return [(place.name, place.path) for place in _files(path, shown) if place.path is not None]


def _files(path: Path, shown: str) -> list[_Place]:
    if path.is_file():
        if not path.name.endswith(_SUFFIXES):
            raise DataError(f"{shown} is neither Parquet nor CSV by its name", f"Known: {', '.join(_SUFFIXES)}.")
        return [_Place(path.name, path)]
    if not path.exists():
        raise DataError(
            f"{shown} is missing", "Correct source.path in params.yaml; it starts from the checkout's root."
        )
    found = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    return [_Place(name, found[name]) for name in _readable(list(found), shown)]


def _objects(address: str, bucket: str) -> list[_Place]:
    prefix = address.removeprefix(bucket).strip("/")
    store = open_store(bucket)
    folder = f"{prefix}/" if prefix else ""
    keys = [found.key for found in store.list(prefix) if found.key == prefix or found.key.startswith(folder)]
    return [_Place(f"{bucket}/{key}", None, key) for key in _readable(keys, address)]


def _readable(names: list[str], shown: str) -> list[str]:
    """The names of tables, sorted; hidden ones and what others leave beside them (``_SUCCESS``) are passed over."""
    tables = sorted(name for name in names if name.endswith(_SUFFIXES) and not Path(name).name.startswith((".", "_")))
    if not tables:
        raise DataError(
            f"{shown} holds no Parquet or CSV file ({len(names)} others)",
            f"Known endings: {', '.join(_SUFFIXES)}.",
        )
    return tables


def _scanned(path: Path, wanted: list[str]) -> pl.LazyFrame:
    if path.name.endswith(".parquet"):
        return pl.scan_parquet(path, glob=False, hive_partitioning=False)
    # All as text: what a value is, is decided by the schema check, a value at a time.
    return pl.scan_csv(path, separator=_separator(path, wanted), infer_schema=False, glob=False)


def _separator(path: Path, wanted: list[str]) -> str:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
        return separator_of(path, stream.readline().decode("utf-8-sig", errors="replace"), wanted)


def separator_of(path: Path, header: str, wanted: list[str]) -> str:
    """The separator under which the header names most of the wanted columns, or else has most columns.

    Args:
        path: Of the file; its name may say it.
        header: Its first line.
        wanted: Names of columns.
    """
    if ".tsv" in path.suffixes:
        return "\t"
    columns = {each: next(csv.reader([header], delimiter=each), []) for each in _SEPARATORS}
    return max(_SEPARATORS, key=lambda each: (len(set(wanted) & set(columns[each])), len(columns[each])))


def require_columns(wanted: dict[str, str], there: list[str], name: str) -> None:
    """Refuse a table that lacks a column.

    Args:
        wanted: Columns by the key of ``source.columns`` that names them.
        there: Columns of the table.
        name: Of the table.

    Raises:
        DataError: Names what is missing, and the nearest that is there.
    """
    missing = {role: column for role, column in wanted.items() if column not in there}
    if missing:
        lines = [
            f"{name} has no column {column!r}, which {_key_of(role)} names; {nearest(column, there)}"
            for role, column in missing.items()
        ]
        raise DataError(
            "\n".join(lines) + f"\n  its columns: {', '.join(there)}", "Correct source.columns in params.yaml."
        )


def _key_of(role: str) -> str:
    return "source.features" if role.startswith(FEATURE) else f"source.columns.{role}"
