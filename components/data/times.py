"""Times of any usual form as microseconds since 1970, UTC."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

SECOND = 1_000_000
"""Microseconds in a second."""
DAY = 86_400 * SECOND
"""Microseconds in a day."""

_UNITS = {"seconds": 1e6, "milliseconds": 1e3, "microseconds": 1.0}
# Up to these magnitudes a number counts seconds, milliseconds, microseconds; beyond them nanoseconds. A time in
# seconds reaches the first in the year 5138, one in milliseconds already in 1973.
_BOUNDS = ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0))
_NANOSECONDS = 1e-3
_FLOAT = r"^([+-]?\d*\.?\d+(?:[eE][+-]?\d+)?)$"
# A format that ends in a zone gives times in UTC, the others are taken as UTC.
_TEXT_FORMATS = ("%+", "%Y-%m-%d %H:%M:%S%.f%:z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")


def microseconds(values: pl.Series, unit: str = "auto") -> pl.Series:
    """Microseconds since 1970 in UTC, ``(E,)`` int64, null where a value is not a time.

    Args:
        values: ``(E,)`` numbers, texts (numbers or ISO 8601), dates or datetimes; without a zone they count as UTC.
        unit: Unit of numbers; ``auto`` tells it from the size of each.
    """
    kind = values.dtype
    if isinstance(kind, pl.Datetime):
        in_utc = values.dt.convert_time_zone("UTC") if kind.time_zone else values
        return in_utc.dt.cast_time_unit("us").cast(pl.Int64)
    if kind == pl.Date:
        return values.cast(pl.Datetime("us")).cast(pl.Int64)
    if kind == pl.String:
        return _of_texts(values.str.strip_chars(), unit)
    if kind.is_integer():
        return _of_integers(values.cast(pl.Int64, strict=False), unit)
    if kind.is_numeric():
        return _of_floats(values.cast(pl.Float64), unit)
    return pl.repeat(None, len(values), dtype=pl.Int64, eager=True)


def iso(time: int) -> str:
    """A time in microseconds since 1970 as ISO 8601 text, in UTC."""
    return str(pl.Series([time], dtype=pl.Int64).cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%SZ")[0])


def _of_texts(text: pl.Series, unit: str) -> pl.Series:
    """Tries one form after the other on what the earlier ones left, so that a file of plain numbers is parsed once."""
    found = _of_integers(text.cast(pl.Int64, strict=False), unit)
    for form in (_FLOAT, *_TEXT_FORMATS, "%Y-%m-%d"):
        left = (found.is_null() & text.is_not_null()).arg_true()
        if left.is_empty():
            break
        rest = text.gather(left)
        if form == _FLOAT:
            parsed = _of_floats(rest.str.extract(_FLOAT).cast(pl.Float64, strict=False), unit)
        elif form == "%Y-%m-%d":
            parsed = rest.str.to_date(form, strict=False).cast(pl.Datetime("us")).cast(pl.Int64)
        else:
            parsed = rest.str.to_datetime(form, time_unit="us", strict=False).cast(pl.Int64)
        found = found.scatter(left, parsed)
    return found


def _of_integers(numbers: pl.Series, unit: str) -> pl.Series:
    value = pl.col("t")

    # Whole numbers stay whole: a float holds today in microseconds exactly, but not in nanoseconds.
    def scaled(factor: float) -> pl.Expr:
        if factor < 1:
            return value // round(1 / factor)
        # Beyond this the product would wrap around and might look like a time of today.
        most = (2**63 - 1) // int(factor)
        return value.clip(-most, most) * int(factor)

    return numbers.rename("t").to_frame().select(_by_size(value.abs(), scaled, unit))["t"]


def _of_floats(numbers: pl.Series, unit: str) -> pl.Series:
    value = pl.col("t")
    exact = _by_size(value.abs(), lambda factor: value * factor, unit).round()
    whole = pl.when(value.is_finite()).then(exact).cast(pl.Int64, strict=False)
    return numbers.rename("t").to_frame().select(whole.alias("t"))["t"]


def _by_size(size: pl.Expr, scaled: Callable[[float], pl.Expr], unit: str) -> pl.Expr:
    if unit != "auto":
        return scaled(_UNITS[unit])
    scaled_by_size = scaled(_NANOSECONDS)
    for bound, factor in reversed(_BOUNDS):
        scaled_by_size = pl.when(size < bound).then(scaled(factor)).otherwise(scaled_by_size)
    return scaled_by_size.alias("t")
