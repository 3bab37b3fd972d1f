"""``scenarios.*.source`` of interactions that come with a split: which of them are learned from is given."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from components.settings.base import Settings
from components.settings.source import EventSelection


class PartColumns(Settings):
    """Which column of a part holds what."""

    user: str = "user"
    """Column with the user id: text or whole number."""
    item: str = "item"
    """Column with the item id: text or whole number."""
    title: str | None = None
    """Optional column with a title of the item."""

    @property
    def time_unit(self) -> Literal["seconds"]:
        """The number of a part stands in the place of a time."""
        return "seconds"


class PartSource(Settings):
    """One part of such a source."""

    path: str
    """The file."""
    columns: PartColumns
    """Which column holds what."""


class _Split(EventSelection):
    @model_validator(mode="after")
    def _nothing_by_time(self) -> _Split:
        if self.as_of is not None or self.window is not None:
            raise ValueError("a source with a split of its own has no times: leave out as_of and window")
        return self


class PublishedSplitSource(_Split):
    """A public set with the split that papers use, and known SHA-256 digests."""

    kind: Literal["citeulike"]
    """Which published set."""
    folder: str | None = None
    """Where its files lie. None: in the folder of downloads, ``RECSTILL_DOWNLOADS``, under the set's name."""

    @model_validator(mode="after")
    def _entry_of_this_set(self) -> PublishedSplitSource:
        expected = f"components/data/catalogue/{self.kind}.yaml"
        if self.path != expected:
            raise ValueError(f"the path of source kind {self.kind!r} is its catalogue entry, {expected!r}")
        return self


class SplitTableSource(_Split):
    """One's own interactions in three Parquet or CSV files of one folder, a row an interaction."""

    kind: Literal["split-table"]
    """The user's own interactions, split already."""
    train: str = "train.csv"
    """File in ``path`` with what is learned from."""
    validation: str = "validation.csv"
    """File that decides when to stop."""
    test: str = "test.csv"
    """File that measures the result."""
    columns: PartColumns = PartColumns()
    """Which column holds what."""


SplitSource = PublishedSplitSource | SplitTableSource
"""Any of them."""
