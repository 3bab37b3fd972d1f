"""The texts that a scenario's settings name: a published set, or anyone's own tables."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from components.data.delimited import Layout, blocks
from components.data.published import AtAddress, InWheel, obtain, read_entry
from components.data.rows import source_file
from components.data.tables import files_below, require_columns, separator_of
from components.data.texts import RawTexts
from components.errors import DataError
from components.settings.base import Settings
from components.settings.text_source import PublishedTextSource, TextSource, TextTableSource

TEST = "test"
"""What a column of splits says of a text that belongs to the test."""


class TextMember(Layout):
    """A file of texts in an archive: columns ``label`` and ``text``."""

    member: str
    """Its name in the archive."""
    skipped: int = Field(default=0, ge=0)
    """Lines before the first text."""
    rows: int
    """Texts in it."""


class _TextArchive(Settings):
    train: TextMember
    """The texts to learn from."""
    test: TextMember
    """The texts that its publishers set apart for a test."""


class TextAtAddress(AtAddress, _TextArchive):
    """The archive of those who publish the set."""


class TextInWheel(InWheel, _TextArchive):
    """A copy of the set in a Python package."""


class TextEntry(Settings):
    """One public set of texts, as ``components/data/catalogue/<name>.yaml`` describes it."""

    name: str
    """Name of the set; the source's ``kind``."""
    title: str
    """What its publishers call it."""
    home: str
    """Its page."""
    licence: str
    """What it may be used for."""
    citation: str
    """What its publishers ask to be cited."""
    archives: list[Annotated[TextAtAddress | TextInWheel, Field(discriminator="kind")]] = Field(min_length=1)
    """Where it can be had, in the order in which they are tried."""


def open_texts(settings: TextSource, root: Path) -> RawTexts:
    """Read all texts of a source.

    Args:
        settings: ``scenarios.<scenario>.source``.
        root: The checkout, which relative paths start from.

    Raises:
        DataError: The source is not there, cannot be read, or lacks a column.
        IntegrityError: What was fetched is not what was expected.
    """
    if isinstance(settings, PublishedTextSource):
        return published_texts(read_entry(root / settings.path, TextEntry))
    return _own(settings, root)


def published_texts(entry: TextEntry) -> RawTexts:
    """Read all texts of a public set.

    Raises:
        DataError: It cannot be had, or the archive has not the expected members and numbers of texts.
        IntegrityError: What was fetched is not what was expected.
    """
    archive, path = obtain(entry.title, entry.archives)
    parts = [
        _member(path, member, entry).with_columns(is_test=pl.lit(member is archive.test))
        for member in (archive.train, archive.test)
    ]
    about = entry.model_dump(include={"title", "home", "licence", "citation"})
    return RawTexts(pl.concat(parts), True, about, [source_file(path)])


def _member(path: Path, member: TextMember, entry: TextEntry) -> pl.DataFrame:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member.member) as stream:
            for _ in range(member.skipped):
                stream.readline()
            table = pl.concat(list(blocks(stream, member)))
    except (KeyError, ValueError, zipfile.BadZipFile, zlib.error, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{member.member} cannot be read from {path}: {error}", f"Correct the catalogue entry of {entry.name}."
        ) from None
    if len(table) != member.rows:
        raise DataError(f"{member.member} of {path} holds {len(table):,} texts, expected {member.rows:,}")
    return table.select(
        "text", "label", file=pl.lit(Path(member.member).name), row=pl.int_range(1, len(table) + 1, dtype=pl.Int64)
    )


def _own(settings: TextTableSource, root: Path) -> RawTexts:
    columns = settings.columns
    wanted = {role: column for role, column in columns.model_dump().items() if column}
    parts, files = [], []
    for name, path in files_below(root / settings.path, settings.path):
        files.append(source_file(path, name))
        try:
            table = pl.read_parquet(path) if path.suffix == ".parquet" else _csv(path, settings, list(wanted.values()))
            require_columns(wanted, table.columns, name)
            chosen = {role: _as_text(table[column], name) for role, column in wanted.items()}
        except (pl.exceptions.PolarsError, OSError, EOFError) as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise DataError(
                f"{name} cannot be read: {reason}",
                "It is damaged, or not of the form that its name says. Mend or remove it.",
            ) from None
        is_test = chosen.get("split", pl.repeat("", len(table), eager=True)).str.strip_chars() == TEST
        parts.append(
            pl.DataFrame({"text": chosen["text"], "label": chosen["label"], "is_test": is_test.fill_null(False)})
            .with_columns(file=pl.lit(name), row=pl.int_range(1, len(table) + 1, dtype=pl.Int64))
            .select("text", "label", "file", "row", "is_test")
        )
    table = pl.concat(parts)
    if columns.split is not None and not table["is_test"].any():
        raise DataError(
            f"no row of {settings.path} says {TEST!r} in its column {columns.split!r}",
            "Correct source.columns.split in params.yaml, or leave it out: a share is then set apart.",
        )
    return RawTexts(table, columns.split is not None, {}, files)


def _csv(path: Path, settings: TextTableSource, wanted: list[str]) -> pl.DataFrame:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    encoding = "utf-8-sig" if settings.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else settings.encoding
    # What is no character of the encoding becomes U+FFFD, by which the row is known later.
    decoded = content.decode(encoding, errors="replace")
    header = decoded.partition("\n")[0]
    if "\0" in header or "\ufffd" in header:
        raise DataError(
            f"the first line of {path.name} is no text in {settings.encoding}",
            "Set source.encoding in params.yaml to what the file is written in, e.g. gb18030, latin-1, utf-16.",
        )
    return pl.read_csv(decoded.encode(), separator=separator_of(path, header, wanted), infer_schema=False)


def _as_text(column: pl.Series, name: str) -> pl.Series:
    kind: Any = column.dtype
    if kind.is_nested() or kind in (pl.Binary, pl.Object):
        raise DataError(
            f"{name}: the column {column.name!r} has the type {kind}, and texts and labels are text",
            "Map another column in source.columns, or convert this one.",
        )
    return column.cast(pl.String)
