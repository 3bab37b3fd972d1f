"""Which events a run sees: none later than a date, none older than a window."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl

from components.data.times import SECOND, iso
from components.errors import DataError


def select(events: pl.DataFrame, as_of: datetime | None, window: timedelta | None) -> pl.DataFrame:
    """The events with ``end - window < timestamp <= end``, where ``end`` is ``as_of`` or the newest event's time.

    Args:
        events: With ``timestamp`` in microseconds.
        as_of: Instant in UTC; None for the newest event's.
        window: Span of time; None for everything up to ``end``.

    Raises:
        DataError: No event is left; says which times there are.
    """
    if events.is_empty():
        return events
    first, last = (int(time) for time in events.select(first=pl.min("timestamp"), last=pl.max("timestamp")).row(0))
    end = last if as_of is None else round(as_of.timestamp() * SECOND)
    start = None if window is None else end - window // timedelta(microseconds=1)
    chosen = pl.col("timestamp") <= end
    if start is not None:
        chosen &= pl.col("timestamp") > start
    selected = events.filter(chosen)
    if selected.is_empty():
        span = f"up to {iso(end)}" if start is None else f"after {iso(start)} and up to {iso(end)}"
        raise DataError(
            f"no event {span} (source.as_of, source.window); the source has {len(events):,} events from "
            f"{iso(first)} to {iso(last)}",
            "Choose another as_of or a longer window in params.yaml.",
        )
    return selected
