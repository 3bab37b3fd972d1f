"""Delimited text of a known layout, read from a stream in blocks of whole lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Literal

import polars as pl
from pydantic import Field

from components.settings.base import Settings

BLOCK_BYTES = 32 << 20
"""Bytes that are parsed at once."""
_ONE_BYTE = "\x1f"  # ASCII's own unit separator stands in for separators of several characters.


class Layout(Settings):
    """How the lines of a file are made."""

    separator: str = Field(min_length=1)
    """What stands between two values."""
    columns: list[str] = Field(min_length=1)
    """Names of the first columns; further ones are not read."""
    header: bool = False
    """Whether the first line names the columns."""
    quoted: bool = False
    """Whether values may be quoted, by ``"``. No value may hold a line break."""
    encoding: Literal["utf-8", "latin-1"] = "utf-8"
    """Encoding of the text."""


def blocks(stream: IO[bytes], layout: Layout, size: int = BLOCK_BYTES) -> Iterator[pl.DataFrame]:
    """The rows of a stream, some at a time, all values as text; a block boundary changes nothing in them.

    Args:
        stream: Its bytes, from the beginning.
        layout: How its lines are made.
        size: Bytes of a block, about.

    Raises:
        polars.exceptions.PolarsError: The text is not of this layout.
    """
    if layout.header:
        stream.readline()
    while block := stream.read(size) + stream.readline():
        yield _parsed(block, layout)


def _parsed(block: bytes, layout: Layout) -> pl.DataFrame:
    if layout.encoding != "utf-8":
        block = block.decode(layout.encoding).encode()
    separator = layout.separator
    if len(separator) > 1:
        block, separator = block.replace(separator.encode(), _ONE_BYTE.encode()), _ONE_BYTE
    places = range(len(layout.columns))
    table = pl.read_csv(
        block,
        separator=separator,
        has_header=False,
        quote_char='"' if layout.quoted else None,
        infer_schema=False,
        columns=list(places),
    )
    return table.rename(dict(zip(table.columns, layout.columns, strict=True)))
