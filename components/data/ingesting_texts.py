"""From a source of texts to checked ones: what is empty, unreadable or there twice is put aside with the reason."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import polars as pl

from components.data.ingesting import Ingested
from components.data.texts import RawTexts, texts_digest
from components.data.validation import counts_by_reason, require_acceptable
from components.data.vocabulary import vocabulary
from components.errors import DataError
from components.settings.text_source import TextSource

_LONGEST_LABEL = 200
_UNREADABLE = "\ufffd"  # What a decoder puts in the place of bytes that are no character.
_CONTROL = r"\p{Cc}"
_SHOWN = 60


def ingest_texts(raw: RawTexts, settings: TextSource) -> Ingested:
    """Check what was read of a source of texts.

    A text that came twice could stand in training and test at once: the first is kept, and of a text that the source
    itself sets apart for a test, the copies in training go. That test stays as its publishers made it, copies and all.

    Args:
        raw: From :func:`components.data.text_sources.open_texts`.
        settings: ``scenarios.<scenario>.source``.

    Raises:
        DataError: It has too many bad rows, or fewer than two labels.
    """
    text, label = pl.col("text"), pl.col("label").str.strip_chars()
    bare = text.str.replace_all(r"[\p{C}\p{Z}]", "")
    reason = (
        pl.when(text.is_null())
        .then(pl.lit("text is missing"))
        .when(bare == "")
        .then(pl.lit("text is empty"))
        .when(text.str.contains(_UNREADABLE, literal=True) | label.str.contains(_UNREADABLE, literal=True))
        .then(pl.lit("bytes are no characters of the encoding"))
        .when(text.str.len_chars() > getattr(settings, "max_characters", 2**31))
        .then(pl.lit("text is too long"))
        .when(label.is_null() | (label == ""))
        .then(pl.lit("label is missing"))
        .when(label.str.contains(_CONTROL))
        .then(pl.lit("label holds a control character"))
        .when(label.str.len_chars() > _LONGEST_LABEL)
        .then(pl.lit(f"label is longer than {_LONGEST_LABEL} characters"))
    )
    table = raw.table.with_row_index("number").with_columns(reason=reason, label=label, words=text.str.strip_chars())
    sound = table.filter(pl.col("reason").is_null())
    # Of equal texts, those of the test come first, so that they are the ones that stay.
    first = sound.sort("is_test", descending=True, maintain_order=True).filter(
        pl.col("words").is_first_distinct() | pl.col("is_test")
    )
    again = table["reason"].is_null() & ~table["number"].is_in(first["number"].implode())
    table = table.with_columns(reason=pl.when(again).then(pl.lit("the same text again")).otherwise("reason"))
    bad = table.filter(pl.col("reason").is_not_null())
    nothing = pl.lit(None, dtype=pl.String)
    shown = pl.col("text").str.slice(0, _SHOWN)
    rejected = bad.select("file", "row", user=nothing, item="label", timestamp=nothing, text=shown, reason="reason")
    require_acceptable(rejected, len(table), settings.max_rejected_share, shown=("item", "text"))
    events = table.filter(pl.col("reason").is_null()).select(
        pl.col("number").cast(pl.Int64).alias("row"),
        # Texts are of nobody: whoever looks for people here finds the column, and none in it.
        nothing.alias("user"),
        "label",
        pl.col("is_test") if raw.has_test else pl.lit(None, dtype=pl.Boolean).alias("is_test"),
        pl.col("words").alias("text"),
    )
    labels = vocabulary(events["label"])
    if len(labels) < 2:
        raise DataError(
            f"all {len(events):,} texts of {settings.path} have the label {labels[0] if len(labels) else None!r}: "
            "there is nothing to tell apart",
            "Bring texts of two labels at least.",
        )
    items = labels.rename("id").to_frame().with_columns(title=pl.lit(None, dtype=pl.String))
    record = {
        "kind": settings.kind,
        "path": settings.path,
        "about": dict(raw.about),
        "files": [asdict(file) for file in raw.files],
        "rows": len(table),
        "rejected": counts_by_reason(rejected),
        "events": len(events),
        "users": 0,
        "items": len(labels),
        "first_event": None,
        "last_event": None,
        "digest": texts_digest(events),
    }
    return Ingested(events, items, rejected, record)


def text_summary(record: dict[str, Any]) -> list[str]:
    """What was found, as plain lines for the console."""
    rejected = ", ".join(f"{count:,} x {reason}" for reason, count in record["rejected"].items()) or "none"
    return [
        f"read {record['rows']:,} texts from {record['path']}; rejected: {rejected}",
        f"{record['events']:,} texts with {record['items']:,} labels",
    ]
