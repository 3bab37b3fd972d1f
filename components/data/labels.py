"""What came of the rows of a source, and what else it knows of them, beside the check of who met what when."""

from __future__ import annotations

import polars as pl

from components.data.features import written_features
from components.data.ids import is_given
from components.data.rows import RawRows
from components.errors import DataError

MISSING, NO_NUMBER = "label is missing", "label is no number"
"""Reasons of rows that are put aside."""
_WORDS = {"true": 1.0, "false": 0.0}


class Labels:
    """Collects labels and features of batches, and finds those of the rows that passed the check.

    Args:
        positive_from: The least label that is a yes.
    """

    def __init__(self, positive_from: float) -> None:
        self._positive_from = positive_from
        self._batches: list[pl.DataFrame] = []
        self._places: list[tuple[int, str, int]] = []
        self._seen = 0

    def add(self, batch: RawRows) -> None:
        """Take in one batch, in the order of the source.

        Raises:
            DataError: The column of labels holds something that is never a label, such as lists.
        """
        raw = batch.rows
        kind = raw.schema["label"]
        if not (kind.is_numeric() or kind in (pl.Boolean, pl.String, pl.Null)):
            raise DataError(
                f"{batch.file}: the column mapped to 'label' has the type {kind}; labels are numbers, or true or false",
                "Map another column in source.columns.label, or convert this one.",
            )
        self._batches.append(
            pl.DataFrame(
                {
                    "row": pl.int_range(self._seen, self._seen + len(raw), eager=True),
                    "label": _numbers(raw["label"]),
                    "label_given": is_given(raw["label"]),
                }
            ).with_columns(written_features(raw))
        )
        self._places.append((self._seen, batch.file, batch.first))
        self._seen += len(raw)

    def joined(self, events: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Events with label and features, and those that have no label, in the form of the quarantine."""
        found = events.join(pl.concat(self._batches), on="row", how="left", maintain_order="left")
        good = found["label"].is_not_null()
        bad = found.filter(~good).sort("row")
        places = pl.DataFrame(self._places, schema=["start", "file", "first"], orient="row")
        rejected = bad.join_asof(places, left_on="row", right_on="start").select(
            "file",
            pl.col("row") - pl.col("start") + pl.col("first"),
            "user",
            "item",
            pl.from_epoch("timestamp", time_unit="us").dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ"),
            reason=pl.when("label_given").then(pl.lit(NO_NUMBER)).otherwise(pl.lit(MISSING)),
        )
        kept = found.filter(good).with_columns((pl.col("label") >= self._positive_from).cast(pl.Int8).alias("label"))
        return kept.drop("label_given"), rejected


def _numbers(values: pl.Series) -> pl.Series:
    if values.dtype == pl.String:
        text = values.str.strip_chars().str.to_lowercase()
        column = pl.col("label")
        words = column.replace_strict(_WORDS, default=None, return_dtype=pl.Float64)
        found = pl.coalesce(column.cast(pl.Float64, strict=False), words)
        values = text.rename("label").to_frame().select(found)["label"]
    return values.cast(pl.Float64, strict=False).fill_nan(None)
