"""``scenarios.*.source``: where the events come from, which of them, and how bad they may be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from components.settings.base import Settings

SequenceLayout = Literal["histories", "pairs"]
PublishedKind = Literal["movielens-100k", "movielens-1m", "movielens-20m", "movielens-25m"]


def _named_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) != len(names):
        raise ValueError("features names a column twice")
    if taken := sorted({"user", "item"} & set(names)):
        raise ValueError(f"features {', '.join(map(repr, taken))} are there already, from source.columns")
    return names


FeatureColumns = Annotated[tuple[str, ...], AfterValidator(_named_once)]
"""Columns of a table beside those that ``columns`` maps."""


class Exclusion(Settings):
    """People whose rows are left out before anything else is done, named by keyed hashes and never by an id."""

    key: str = Field(pattern=r"^[0-9a-f]{16}$")
    """Id of the key that the hashes were made with; ``RECSTILL_SUBJECT_KEY`` has to hold that one."""
    subjects: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{24}$")], ...] = ()
    """One hash a person; ``recstill erase`` writes them."""


class EventSelection(Settings):
    """Which rows of a source of users and items are used."""

    path: str
    """What ingest reads; DVC runs ingest again when it changes. A published set: its catalogue entry."""
    as_of: datetime | None = None
    """Events later than this instant (UTC) are left out, so that a run can be repeated for any date. None: all."""
    window: timedelta | None = None
    """Only events at most this long before ``as_of`` (or the newest event) are used, e.g. ``P365D``. None: all."""
    max_rejected_share: float = Field(default=0.01, ge=0, le=1)
    """The stage fails when a greater share of rows than this is rejected by the schema check."""
    exclude: Exclusion | None = None
    """People who are left out, by keyed hashes. None: nobody."""

    @field_validator("as_of")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)

    @field_validator("window")
    @classmethod
    def _positive(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value <= timedelta(0):
            raise ValueError("must be a positive span of time, e.g. P365D for 365 days")
        return value


class PublishedSource(EventSelection):
    """A public data set with an official address and known SHA-256 digests."""

    kind: PublishedKind
    """Which published set."""
    features: tuple[Literal["genres", "year"], ...] = ()
    """What is read of the movies as well; ``prepare.item_features`` says how."""

    @model_validator(mode="after")
    def _entry_of_this_set(self) -> PublishedSource:
        expected = f"components/data/catalogue/{self.kind}.yaml"
        if self.path != expected:
            raise ValueError(f"the path of source kind {self.kind!r} is its catalogue entry, {expected!r}")
        return self


class ColumnMapping(Settings):
    """Which column of a table holds what."""

    user: str = "user"
    """Column with the user id: text or whole number."""
    item: str = "item"
    """Column with the item id: text or whole number."""
    timestamp: str = "timestamp"
    """Column with the time of the event: a number since 1970, an ISO 8601 text, a date or a datetime; UTC unless it
    names another zone."""
    time_unit: Literal["auto", "seconds", "milliseconds", "microseconds"] = "auto"
    """Unit of times that are numbers. ``auto`` tells it from each number's size, which is right from 1974 on."""
    title: str | None = None
    """Optional column with a title of the item, shown by ``recstill predict``."""


class TableSource(EventSelection):
    """Anyone's own interactions: a Parquet or CSV file, a folder of them, or an ``s3://`` prefix."""

    kind: Literal["table"]
    """The user's own interactions."""
    columns: ColumnMapping = ColumnMapping()
    """Which column holds what."""
    features: FeatureColumns = ()
    """Further columns that are read; ``prepare.item_features`` says how. No other column is."""


class SyntheticSource(EventSelection):
    """Interactions drawn by a seeded generator with sequence structure that a network can learn."""

    kind: Literal["synthetic"]
    """A seeded generator."""
    users: int = Field(default=400, ge=2)
    """How many users."""
    items: int = Field(default=200, ge=12)
    """How many items."""
    events_per_user: int = Field(default=30, ge=6)
    """Mean number of events a user."""
    seed: int = Field(default=0, ge=0)
    """Seed of the generator."""

    @model_validator(mode="after")
    def _items_suffice(self) -> SyntheticSource:
        if self.events_per_user > self.items // 2:
            raise ValueError(
                f"events_per_user ({self.events_per_user}) must be at most half of items ({self.items}): "
                "no user meets an item twice"
            )
        return self


class SequenceSource(EventSelection):
    """Histories in a file, plain text or ``.gz``.

    Nothing says when an item was met: the times of the events are their places in the history, in seconds since 1970.
    """

    kind: Literal["sequences"]
    """A file of histories, or the catalogue entry of a published one."""
    layout: SequenceLayout = "histories"
    """``histories``: ``user item item ...`` a line, oldest first. ``pairs``: ``user item`` a line, each user's in
    order. A catalogue entry says it itself."""

    @model_validator(mode="after")
    def _chosen_by_no_time(self) -> SequenceSource:
        if self.as_of is not None or self.window is not None:
            raise ValueError("histories without times cannot be chosen by as_of or window: leave both out")
        return self


SourceSettings = Annotated[
    PublishedSource | TableSource | SyntheticSource | SequenceSource, Field(discriminator="kind")
]
