"""Checked events between ingest and prepare: their identity, and how they are read back."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from components.data.vocabulary import codes, vocabulary
from components.errors import DataError, IntegrityError
from components.storage.atomic import read_json
from components.storage.digests import array_digest, record_digest


def events_digest(events: pl.DataFrame) -> str:
    """SHA-256 over who met what when, and whatever else is known of it, in order.

    Neither files, batches nor rejected rows beside them change it.
    """
    parts: dict[str, str] = {"timestamp": array_digest(events["timestamp"].to_numpy())}
    for name in ("user", "item"):
        words = vocabulary(events[name])
        parts[name] = array_digest(codes(events[name], words))
        parts[f"{name}_ids"] = record_digest(words.to_list())
    for name in sorted(set(events.columns) - {"user", "item", "timestamp", "row"}):
        parts[name] = _column_digest(events[name])
    return record_digest(parts)


def read_ingested(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame, str]:
    """What ingest wrote into ``folder``: events, items, and the digest of the events.

    Raises:
        DataError: A file is missing.
        IntegrityError: The events are damaged, or are not those that ``source.json`` describes.
    """
    record = read_json(folder / "source.json")
    try:
        events, items = (pl.read_parquet(folder / f"{name}.parquet") for name in ("events", "items"))
    except FileNotFoundError as error:
        raise DataError(f"{folder} is incomplete: {error}", "Run the stage `ingest` again.") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise IntegrityError(f"events in {folder} are damaged: {error}", "Run the stage `ingest` again.") from None
    if events_digest(events) != record["digest"]:
        raise IntegrityError(
            f"{folder / 'events.parquet'} does not hold the events that source.json describes",
            "Run the stage `ingest` again.",
        )
    return events, items, record["digest"]


def _column_digest(values: pl.Series) -> str:
    """Of numbers without gaps, or of text that may have them."""
    if values.dtype != pl.String:
        return array_digest(values.to_numpy())
    words = vocabulary(values.drop_nulls())
    found = values.cast(pl.Enum(words)).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
    return record_digest([array_digest(found), words.to_list()])
