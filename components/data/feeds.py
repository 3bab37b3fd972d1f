"""A feed as events of interest: rows of several types and with dwell become impressions that weigh something."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import polars as pl

from components.data.features import as_text, written_features
from components.data.ids import is_given
from components.data.rows import FEATURE, RawRows, Source, SourceFile
from components.errors import DataError
from components.settings.feed_source import InterestSettings

NO_TYPE, UNKNOWN_TYPE = "event type is missing", "unknown event type"
NO_NUMBER, NEGATIVE = "dwell is no number", "negative dwell"
"""Reasons of rows that are put aside."""


class Feed:
    """A source whose rows have a type, and perhaps dwell.

    Args:
        rows: Where they come from, with ``event`` and perhaps ``dwell``.
        interest: What each row is worth.
    """

    def __init__(self, rows: Source, interest: InterestSettings) -> None:
        self._rows, self._interest = rows, interest
        self.time_unit = rows.time_unit

    def about(self) -> dict[str, Any]:
        """What the source says of itself."""
        return self._rows.about()

    def files(self) -> list[SourceFile]:
        """What was read."""
        return self._rows.files()

    def titles(self) -> pl.DataFrame | None:
        """Titles of items, where the source has them."""
        return self._rows.titles()

    def batches(self) -> Iterator[RawRows]:
        """All rows, with ``worth`` float64, and with ``refused`` where type or dwell cannot be.

        Raises:
            DataError: A file cannot be read, or a column is missing or never holds a type or dwell.
        """
        for batch in self._rows.batches():
            yield batch._replace(rows=self._judged(batch))

    def _judged(self, batch: RawRows) -> pl.DataFrame:
        raw, interest = batch.rows, self._interest
        if raw.schema["event"].is_nested():
            raise DataError(
                f"{batch.file}: the column mapped to 'event' has the type {raw.schema['event']}; types are text",
                "Map another column in source.columns.event.",
            )
        event = as_text(raw["event"]).str.strip_chars()
        seconds, dwell = _seconds(batch) if "dwell" in raw.columns else (None, pl.lit(0.0))
        weight = pl.col("event").replace_strict(interest.weights, default=None, return_dtype=pl.Float64)
        reasons = [
            (pl.col("event").is_null() | (pl.col("event") == ""), NO_TYPE),
            (weight.is_null(), UNKNOWN_TYPE),
        ]
        if seconds is not None:
            reasons += [(pl.lit(is_given(raw["dwell"])) & dwell.is_null(), NO_NUMBER), (dwell < 0, NEGATIVE)]
        refused = pl.coalesce(pl.when(wrong).then(pl.lit(reason)) for wrong, reason in reasons)
        worth = weight + interest.dwell * dwell.fill_null(0.0).clip(0.0, interest.dwell_most)
        columns = [event.alias("event"), *([seconds.alias("dwell")] if seconds is not None else [])]
        return raw.with_columns(columns).with_columns(refused=refused, worth=worth)


class Impressions:
    """Collects what rows are worth, and makes impressions of those that passed the check.

    Args:
        interest: Which rows are one impression, which of them are of interest, and what those weigh.
    """

    def __init__(self, interest: InterestSettings) -> None:
        self._interest = interest
        self._batches: list[pl.DataFrame] = []
        self._seen = 0

    def add(self, batch: RawRows) -> None:
        """Take in one batch of a :class:`Feed`, in the order of the source."""
        raw = batch.rows
        numbers = pl.int_range(self._seen, self._seen + len(raw), eager=True).alias("row")
        self._batches.append(pl.DataFrame([numbers, raw["worth"], *written_features(raw)]))
        self._seen += len(raw)

    def joined(self, events: pl.DataFrame) -> pl.DataFrame:
        """Impressions, in the order of their first rows.

        Args:
            events: ``user``, ``item``, ``timestamp``, ``row`` of rows.

        Returns:
            The same of impressions, whose time and row are those of their first; ``label`` int8, 1 where it is of
            interest; ``weight`` float32, of those without interest 1; features as the first row has them.
        """
        place = ("user", "item", "timestamp", "row")
        found = events.join(pl.concat(self._batches), on="row", how="left", maintain_order="left").sort(place)
        gap = pl.col("timestamp").diff() > self._interest.within // timedelta(microseconds=1)
        other = pl.col("user").ne_missing(pl.col("user").shift()) | pl.col("item").ne_missing(pl.col("item").shift())
        features = [name for name in found.columns if name.startswith(FEATURE)]
        impressions = (
            found.with_columns(impression=(other | gap.fill_null(True)).cum_sum())
            .group_by("impression", maintain_order=True)
            .agg(
                *(pl.col(name).first() for name in place),
                pl.col("worth").sum(),
                *(pl.col(name).drop_nulls().first() for name in features),
            )
        )
        interesting = pl.col("worth") >= self._interest.least
        weight = pl.when(interesting).then(pl.col("worth").clip(upper_bound=self._interest.most)).otherwise(1.0)
        return (
            impressions.with_columns(label=interesting.cast(pl.Int8), weight=weight.cast(pl.Float32))
            .select(*place, "label", "weight", *features)
            .sort("row")
        )


def _seconds(batch: RawRows) -> tuple[pl.Series, pl.Expr]:
    """The column ``dwell`` as seconds, null where it holds no finite number."""
    values = batch.rows["dwell"]
    kind = values.dtype
    if not (kind.is_numeric() or kind in (pl.String, pl.Null)):
        raise DataError(
            f"{batch.file}: the column mapped to 'dwell' has the type {kind}; dwell is a number of seconds",
            "Map another column in source.columns.dwell, or convert this one.",
        )
    if kind == pl.String:
        values = values.str.strip_chars()
    numbers = values.cast(pl.Float64, strict=False)
    known = pl.when(pl.col("dwell").is_finite()).then(pl.col("dwell"))
    return numbers, known
