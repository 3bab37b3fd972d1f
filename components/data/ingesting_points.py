"""What ingest says of any source of points with a label, once it has checked them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import polars as pl

from components.data.ingesting import Ingested
from components.data.rows import SourceFile
from components.data.validation import counts_by_reason
from components.data.vocabulary import vocabulary
from components.errors import DataError

_LONGEST_LABEL = 200
_CONTROL = r"\p{Cc}"


class PointSource(Protocol):
    """``scenarios.<scenario>.source``."""

    @property
    def kind(self) -> str:
        """What is read."""

    @property
    def path(self) -> str:
        """Where from."""


def label_fault(label: pl.Expr) -> pl.Expr:
    """Why a label, without white space around it, cannot be used; null where it can."""
    return (
        pl.when(label.is_null() | (label == ""))
        .then(pl.lit("label is missing"))
        .when(label.str.contains(_CONTROL))
        .then(pl.lit("label holds a control character"))
        .when(label.str.len_chars() > _LONGEST_LABEL)
        .then(pl.lit(f"label is longer than {_LONGEST_LABEL} characters"))
    )


def ingested(
    events: pl.DataFrame,
    rejected: pl.DataFrame,
    settings: PointSource,
    *,
    what: str,
    rows: int,
    about: Mapping[str, Any],
    files: Sequence[SourceFile],
    digest: str,
    **further: Any,
) -> Ingested:
    """What ingest writes of good points.

    Args:
        events: The good ones: ``row``, ``user`` (nobody), ``label``, ``is_test``, and what they are.
        rejected: The others.
        settings: Of the source.
        what: The points, in plural.
        rows: All points of the source.
        about: What the source says of itself.
        files: What was read.
        digest: SHA-256 over the good ones.
        further: What ``source.json`` says besides.

    Raises:
        DataError: There are none, or fewer than two labels.
    """
    if not rows:
        raise DataError(f"{settings.path} has no {what}", "Point source.path in params.yaml to them.")
    labels = vocabulary(events["label"])
    if len(labels) < 2:
        raise DataError(
            f"all {len(events):,} {what} of {settings.path} have the label {labels[0] if len(labels) else None!r}: "
            "there is nothing to tell apart",
            f"Bring {what} of two labels at least.",
        )
    record = {
        "kind": settings.kind,
        "path": settings.path,
        "about": dict(about),
        "files": [asdict(file) for file in files],
        "rows": rows,
        "rejected": counts_by_reason(rejected),
        "events": len(events),
        "users": 0,
        "items": len(labels),
        "first_event": None,
        "last_event": None,
        **further,
        "digest": digest,
    }
    items = labels.rename("id").to_frame().with_columns(title=pl.lit(None, dtype=pl.String))
    return Ingested(events, items, rejected, record)


def point_summary(record: Mapping[str, Any], what: str) -> list[str]:
    """What was found, as plain lines for the console."""
    rejected = ", ".join(f"{count:,} x {reason}" for reason, count in record["rejected"].items()) or "none"
    shape = f" of {' x '.join(map(str, record['shape']))} values" if "shape" in record else ""
    return [
        f"read {record['rows']:,} {what}{shape} from {record['path']}; rejected: {rejected}",
        f"{record['events']:,} {what} with {record['items']:,} labels",
    ]
