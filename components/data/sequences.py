"""Histories as papers on sequential recommenders share them: ``user item item ...`` a line, oldest first, or ``user
item`` a line, where the lines of a user are in order."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from pydantic import Field

from components.data.published import AtAddress, obtain, read_entry
from components.data.rows import RawRows, SourceFile, source_file
from components.errors import DataError
from components.settings.base import Settings
from components.settings.source import SequenceLayout

BATCH_ROWS = 1_000_000
"""Events that are checked at once."""
NO_ITEM = "line with a user and no item"
NOT_TEXT = "not UTF-8"
AGAIN = "user of an earlier line"
NO_PAIR = "line that is not a user and an item"
_COLUMNS = {"user": pl.String, "item": pl.String, "timestamp": pl.Int64, "line": pl.Int64, "refused": pl.String}
_ENTRY = ".yaml"
_Event = tuple[str, str | None, int, int, str | None]
"""User, item, place, line and what is wrong."""
_MARK = b"\xef\xbb\xbf"  # which some editors put before UTF-8.


class SequenceEntry(Settings):
    """One public file of histories, as ``components/data/catalogue/<name>.yaml`` describes it."""

    name: str
    """Name of the set."""
    title: str
    """What its publishers call it."""
    home: str
    """Its page."""
    licence: str
    """What it may be used for."""
    citation: str
    """What its publishers ask to be cited."""
    rows: int
    """Events in it."""
    layout: SequenceLayout = "histories"
    """What a line is."""
    files: list[AtAddress] = Field(min_length=1)
    """Where it can be had, in the order in which they are tried."""


class Sequences:
    """A file of histories as a source.

    Args:
        path: The file, plain or ``.gz``, or a catalogue entry (``.yaml``).
        layout: What a line of the file is; a catalogue entry says it itself.

    Raises:
        DataError: It is missing, or cannot be had.
        IntegrityError: What was fetched is not what was expected.
    """

    time_unit = "seconds"

    def __init__(self, path: Path, layout: SequenceLayout = "histories") -> None:
        self._entry: SequenceEntry | None = None
        self._path, self._layout = path, layout
        if path.suffix == _ENTRY:
            self._entry = read_entry(path, SequenceEntry)
            self._layout = self._entry.layout
            _, self._path = obtain(self._entry.title, self._entry.files)
        elif not path.is_file():
            raise DataError(
                f"{path} is missing, or no file", "Correct source.path in params.yaml; it starts from the root."
            )

    def about(self) -> dict[str, Any]:
        """Title, page, licence and citation of a published file; nothing of another."""
        return self._entry.model_dump(include={"title", "home", "licence", "citation"}) if self._entry else {}

    def files(self) -> list[SourceFile]:
        """The file."""
        return [source_file(self._path)]

    def batches(self) -> Iterator[RawRows]:
        """The events of all lines, at most about ``BATCH_ROWS`` at a time; an event's time is its place in the history.

        Raises:
            DataError: The file is damaged, or the published one has not the expected number of events.
        """
        rows: list[_Event] = []
        met: dict[str, int] = {}
        events_of = _events if self._layout == "histories" else _pair
        count = 0
        try:
            with gzip.open(self._path) if self._path.suffix == ".gz" else self._path.open("rb") as stream:
                for number, line in enumerate(stream, 1):
                    events = events_of(line.removeprefix(_MARK) if number == 1 else line, number, met)
                    rows += events
                    count += len(events)
                    if len(rows) >= BATCH_ROWS:
                        yield self._batch(rows)
                        rows = []
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(
                f"{self._path} cannot be read: {error}",
                "It is damaged, or not of the form that its name says. Mend or replace it.",
            ) from None
        if rows:
            yield self._batch(rows)
        if self._entry and count != self._entry.rows:
            raise DataError(
                f"{self._path} holds {count:,} events of {self._entry.name}, expected {self._entry.rows:,}",
                "Correct the catalogue entry.",
            )

    def titles(self) -> None:
        """None are known."""

    def _batch(self, rows: list[_Event]) -> RawRows:
        return RawRows(self._path.name, rows[0][3], pl.DataFrame(rows, schema=_COLUMNS, orient="row"))


def _events(line: bytes, number: int, met: dict[str, int]) -> list[_Event]:
    """The events of a user's line; of an empty line there are none."""
    words = line.split()
    if not words:
        return []
    user, wrong = _text(words[0])
    if wrong is None and user in met:
        wrong = AGAIN
    met[user] = 1
    if len(words) == 1:
        return [(user, None, 0, number, wrong or NO_ITEM)]
    items = (_text(word) for word in words[1:])
    return [(user, item, place, number, wrong or bad) for place, (item, bad) in enumerate(items)]


def _pair(line: bytes, number: int, met: dict[str, int]) -> list[_Event]:
    """The event of a line; of an empty line there is none. ``met`` counts those of each user."""
    words = line.split()
    if not words:
        return []
    user, wrong = _text(words[0])
    place = met.get(user, 0)
    met[user] = place + 1
    if len(words) != 2:
        return [(user, None, place, number, wrong or NO_PAIR)]
    item, bad = _text(words[1])
    return [(user, item, place, number, wrong or bad)]


def _text(word: bytes) -> tuple[str, str | None]:
    try:
        return word.decode(), None
    except UnicodeDecodeError:
        return word.decode(errors="replace"), NOT_TEXT
