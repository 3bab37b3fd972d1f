"""From a source to checked events: read, validate, select, and describe what was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple

import polars as pl

from components.data.attributes import Attributes
from components.data.events import events_digest
from components.data.excluding import Excluded
from components.data.feeds import Impressions
from components.data.labels import Labels
from components.data.rows import Source
from components.data.selection import select
from components.data.subject_key import SubjectKey
from components.data.times import DAY, SECOND, iso
from components.data.validation import Validation, counts_by_reason, require_acceptable
from components.data.vocabulary import vocabulary
from components.errors import DataError
from components.settings.feed_source import FeedSource
from components.settings.labelled_source import LabelledSource
from components.settings.source import PublishedSource, SequenceSource, SourceSettings, TableSource
from components.settings.split_source import SplitSource


class Ingested(NamedTuple):
    """What ingest writes.

    Attributes:
        events: ``user`` text, ``item`` text, ``timestamp`` int64 (microseconds since 1970, UTC), ``row`` int64 (number
            in the whole source, from 0), in the order of the source; of a source of rows with a label also ``label``
            int8, 0 or 1, of a feed ``weight`` float32 too; where features are read, ``feature.<name>`` text or null.
        items: ``id`` text, ``title`` text or null, one row an item of the events, in the order of the vocabulary.
        rejected: ``file``, ``row`` (number in its file, from 1), the values as text, ``reason``.
        record: The content of ``source.json``; it holds nothing that depends on when or where ingest ran.
    """

    events: pl.DataFrame
    items: pl.DataFrame
    rejected: pl.DataFrame
    record: dict[str, Any]


def ingest(
    source: Source,
    settings: SourceSettings | LabelledSource | SplitSource | FeedSource,
    now: datetime,
    key: SubjectKey | None = None,
) -> Ingested:
    """Read all of a source.

    Args:
        source: Where the events come from.
        settings: What is selected, and how many bad rows are accepted.
        now: The wall clock. An event more than a day later has a wrong time.
        key: By which people are known who are to be left out.

    Raises:
        SettingsError: Somebody is to be left out, and the key is missing or another one.
        DataError: The source cannot be read, lacks a column, has too many bad rows, or leaves no events or one user.
    """
    validation = Validation(round(now.timestamp() * SECOND) + DAY, source.time_unit)
    excluded = Excluded(settings.exclude, key)
    labels = Labels(settings.positive_from) if isinstance(settings, LabelledSource) else None
    impressions = Impressions(settings.interest) if isinstance(settings, FeedSource) else None
    attributes = Attributes() if isinstance(settings, TableSource | PublishedSource) and settings.features else None
    for batch in source.batches():
        validation.add(batch, excluded.rows(batch))
        for collected in (labels, impressions, attributes):
            if collected is not None:
                collected.add(batch)
    if not validation.rows:
        raise DataError(f"{settings.path} has no rows", "Point source.path in params.yaml to the interactions.")
    valid, rejected = validation.finish()
    if labels is not None:
        valid, unlabelled = labels.joined(valid)
        rejected = pl.concat([rejected, unlabelled])
    if impressions is not None:
        valid = impressions.joined(valid)
    if attributes is not None:
        valid = attributes.joined(valid)
    require_acceptable(rejected, validation.rows, settings.max_rejected_share)
    events = select(valid, settings.as_of, settings.window)
    users = events["user"].n_unique()
    if users < 2:
        who = f"one user, {events['user'][0]!r}," if users else "no user at all"
        raise DataError(
            f"{settings.path} has {who} in {len(events):,} selected events; learning what users have in common "
            "takes at least two",
            "Check source.columns.user, source.as_of and source.window in params.yaml.",
        )
    words = vocabulary(events["item"])
    # A source with a split of its own has parts in the place of times, and one of sequences has places.
    timed = not isinstance(settings, SplitSource | SequenceSource)
    return Ingested(
        events,
        _catalogue(words, source.titles()),
        rejected,
        {
            "kind": settings.kind,
            "path": settings.path,
            "about": source.about(),
            "files": [asdict(file) for file in source.files()],
            "rows": validation.rows,
            "rejected": counts_by_reason(rejected),
            "events": len(events),
            **({"of_interest": int(events["label"].sum())} if impressions is not None else {}),
            "users": users,
            "items": len(words),
            "first_event": iso(events["timestamp"].min()) if timed else None,  # type: ignore[arg-type]
            "last_event": iso(events["timestamp"].max()) if timed else None,  # type: ignore[arg-type]
            "as_of": None if settings.as_of is None else settings.as_of.isoformat(),
            # Neither who nor how many rows: that would be something about them.
            **({"excluded_people": len(excluded)} if len(excluded) else {}),
            "window_seconds": None if settings.window is None else settings.window.total_seconds(),
            "digest": events_digest(events),
        },
    )


def summary(record: Mapping[str, Any]) -> list[str]:
    """What ingest found, as plain lines for the console."""
    rejected = ", ".join(f"{count:,} x {reason}" for reason, count in record["rejected"].items()) or "none"
    span = "" if record["first_event"] is None else f", {record['first_event']} to {record['last_event']}"
    of_interest = f"{record['of_interest']:,} of interest among " if "of_interest" in record else ""
    return [
        f"read {record['rows']:,} rows from {record['path']}; rejected: {rejected}",
        f"{of_interest}{record['events']:,} events of {record['users']:,} users and {record['items']:,} items{span}",
    ]


def _catalogue(words: pl.Series, titles: pl.DataFrame | None) -> pl.DataFrame:
    ids = words.rename("id").to_frame()
    if titles is None:
        return ids.with_columns(title=pl.lit(None, dtype=pl.String))
    return ids.join(titles.select("id", "title"), on="id", how="left", maintain_order="left")
