"""Ids of users and items as text, whatever type a file has them in."""

from __future__ import annotations

import polars as pl


def is_given(values: pl.Series) -> pl.Series:
    """Whether there is anything at all, ``(E,)`` bool: null, NaN and blank text count as nothing."""
    if values.dtype == pl.String:
        return (values.str.strip_chars() != "").fill_null(False)
    if values.dtype.is_float():
        return values.is_not_nan().fill_null(False)
    return values.is_not_null()


def as_ids(values: pl.Series) -> pl.Series:
    """Ids as text, ``(E,)``, null where a value is no id.

    Whole floats are ids: they are what many tools make of a column of whole numbers that misses one.
    """
    if values.dtype.is_float():
        whole = values.is_finite() & (values == values.round())
        return pl.select(pl.when(whole).then(values)).to_series().cast(pl.Int64, strict=False).cast(pl.String)
    return pl.select(pl.when(is_given(values)).then(values.cast(pl.String))).to_series()
