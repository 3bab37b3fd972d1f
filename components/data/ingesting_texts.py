"""From a source of texts to checked ones: what is empty, unreadable or there twice is put aside with the reason."""

from __future__ import annotations

import polars as pl

from components.data.ingesting import Ingested
from components.data.ingesting_points import ingested, label_fault
from components.data.texts import RawTexts, texts_digest
from components.data.validation import require_acceptable
from components.settings.text_source import TextSource

_UNREADABLE = "\ufffd"  # What a decoder puts in the place of bytes that are no character.
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
        .otherwise(label_fault(label))
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
    return ingested(
        events,
        rejected,
        settings,
        what="texts",
        rows=len(table),
        about=raw.about,
        files=raw.files,
        digest=texts_digest(events),
    )
