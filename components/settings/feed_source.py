"""``scenarios.*.source`` of a feed: what people were shown, what they did with it, and how long they stayed."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field, field_validator, model_validator

from components.settings.base import Settings
from components.settings.source import ColumnMapping, EventSelection, FeatureColumns


class InterestSettings(Settings):
    """What the events of an impression say together of the interest in it, as one number."""

    weights: dict[str, float] = Field(
        default={"view": 0.0, "click": 0.5, "like": 1.0, "comment": 1.5, "share": 2.0, "hide": -3.0}, min_length=1
    )
    """What each type of event adds; a negative one speaks against interest. A row of another type is put aside."""
    dwell: float = Field(default=0.05, ge=0)
    """What each second of dwell adds."""
    dwell_most: float = Field(default=60.0, gt=0)
    """Seconds of dwell of a row that count at most."""
    within: timedelta = timedelta(minutes=30)
    """Rows of one user and item that follow each other within this span are one impression: their numbers add up."""
    least: float = Field(default=1.0, gt=0)
    """An impression that comes to at least this is an event of interest, any other is none."""
    most: float = Field(default=3.0, gt=0)
    """What an event of interest weighs at most. It is learned from in proportion to its weight."""

    @field_validator("within")
    @classmethod
    def _not_negative(cls, value: timedelta) -> timedelta:
        if value < timedelta(0):
            raise ValueError("must be a span of time, e.g. PT30M for 30 minutes")
        return value

    @model_validator(mode="after")
    def _interest_can_be(self) -> InterestSettings:
        if self.most < self.least:
            raise ValueError(f"most ({self.most:g}) is below least ({self.least:g})")
        if max(self.weights.values()) <= 0 and self.dwell == 0:
            raise ValueError("nothing adds to the interest: give a type a positive weight, or dwell one")
        return self


class FeedColumns(ColumnMapping):
    """Which column of a log of impressions holds what."""

    event: str = "event"
    """Column with the type of the event: text, a key of ``interest.weights``."""
    dwell: str | None = None
    """Optional column with the seconds that somebody stayed, 0 or more; empty where nobody knows."""


class _Feed(EventSelection):
    interest: InterestSettings = InterestSettings()
    """What is an event of interest, and what it weighs."""


class FeedTableSource(_Feed):
    """Anyone's own log of a feed: a Parquet or CSV file, a folder of them, or an ``s3://`` prefix."""

    kind: Literal["feed-table"]
    """The user's own log."""
    columns: FeedColumns = FeedColumns()
    """Which column holds what."""
    features: FeatureColumns = ()
    """Further columns that are read; ``prepare`` says how. No other column is."""


class SyntheticFeedSource(_Feed):
    """A feed drawn by a seeded generator: tastes that shift, items that lead to others, likes, shares and dwell."""

    kind: Literal["synthetic-feed"]
    """A seeded generator."""
    users: int = Field(default=600, ge=10)
    """How many users."""
    items: int = Field(default=300, ge=24)
    """How many items."""
    impressions_per_user: int = Field(default=60, ge=10)
    """What each user is shown."""
    seed: int = Field(default=0, ge=0)
    """Seed of the generator."""

    @model_validator(mode="after")
    def _items_suffice(self) -> SyntheticFeedSource:
        if self.impressions_per_user > self.items // 2:
            raise ValueError(
                f"impressions_per_user ({self.impressions_per_user}) must be at most half of items ({self.items}): "
                "nobody is shown an item twice"
            )
        return self


FeedSource = FeedTableSource | SyntheticFeedSource
"""Any of them."""
