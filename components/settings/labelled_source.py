"""``scenarios.*.source`` of rows with a label: somebody met something, and it came to something or not."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.settings.source import ColumnMapping, EventSelection, FeatureColumns


class LabelledColumns(ColumnMapping):
    """Which column of a log holds what."""

    label: str = "label"
    """Column with what came of it: a number, or true and false."""


class _Labelled(EventSelection):
    positive_from: float = 1.0
    """A row whose label is at least this is a yes, any other a no."""


class LabelledTableSource(_Labelled):
    """Anyone's own log: a Parquet or CSV file, a folder of them, or an ``s3://`` prefix."""

    kind: Literal["labelled-table"]
    """The user's own log."""
    columns: LabelledColumns = LabelledColumns()
    """Which column holds what."""
    features: FeatureColumns = ()
    """Further columns that are read; ``prepare.features`` says how. No other column is."""


class RatedMoviesSource(_Labelled):
    """MovieLens with gender, age and occupation of the users, genres and year of the movies; ratings are the labels."""

    kind: Literal["rated-movies"]
    """A published set with what is known of users and movies, or a folder with its files."""
    positive_from: float = Field(default=4.0)
    """A rating of at least this is a yes, any other a no."""


class SyntheticClicksSource(_Labelled):
    """Impressions drawn by a seeded generator: what a user likes shows in what he or she liked before."""

    kind: Literal["synthetic-clicks"]
    """A seeded generator."""
    users: int = Field(default=200, ge=10)
    """How many users."""
    items: int = Field(default=16, ge=4)
    """How many items."""
    rows_per_user: int = Field(default=30, ge=10)
    """Rows of each user."""
    seed: int = Field(default=0, ge=0)
    """Seed of the generator."""


LabelledSource = LabelledTableSource | RatedMoviesSource | SyntheticClicksSource
"""Any of them."""
