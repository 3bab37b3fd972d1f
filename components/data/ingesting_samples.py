"""From a source of samples to checked ones: what is missing, endless or there twice is put aside with the reason."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from components.data.ingesting import Ingested
from components.data.samples import RawSamples, samples_digest
from components.data.validation import counts_by_reason, require_acceptable
from components.data.vocabulary import vocabulary
from components.errors import DataError
from components.settings.sample_source import SampleSource

_REASONS = ("label is missing", "a value is missing or not finite", "the same sample again")


def ingest_samples(raw: RawSamples, settings: SampleSource) -> Ingested:
    """Check what was read of a source of samples.

    Args:
        raw: From :func:`components.data.sample_sources.open_samples`.
        settings: ``scenarios.<scenario>.source``.

    Raises:
        DataError: It has too many bad samples, or fewer than two labels.
    """
    labels = raw.labels.cast(pl.String)
    finite = np.isfinite(raw.values).all(axis=1)
    values = np.where(finite[:, None], raw.values, 0.0).astype(np.float32)
    # A sample that came twice could stand in training and test at once. Of a test sample, the copy in training goes.
    first = np.zeros(len(values), dtype=bool)
    apart = np.zeros(len(values), dtype=bool) if raw.is_test is None else raw.is_test
    order = np.argsort(~apart, kind="stable")
    _, places = np.unique(values[order], axis=0, return_index=True)
    first[order[places]] = True
    reason = np.select([labels.is_null().to_numpy(), ~finite, ~first], [0, 1, 2], default=-1)
    good = reason < 0
    good[list(raw.faults)] = False
    bad = np.flatnonzero(~good)
    rejected = pl.DataFrame(
        {
            "file": pl.repeat(raw.file, len(bad), dtype=pl.String, eager=True)
            if isinstance(raw.file, str)
            else raw.file.gather(bad),
            "row": bad + 1,
            "user": pl.repeat(None, len(bad), dtype=pl.String, eager=True),
            "item": labels.gather(bad),
            "timestamp": pl.repeat(None, len(bad), dtype=pl.String, eager=True),
            "reason": pl.Series(
                [raw.faults.get(row) or _REASONS[reason[row]] for row in bad.tolist()], dtype=pl.String
            ),
        }
    )
    require_acceptable(rejected, len(labels), settings.max_rejected_share)
    kept = np.flatnonzero(good)
    events = pl.DataFrame(
        {
            "row": kept,
            # Samples are of nobody: whoever looks for people here finds the column, and none in it.
            "user": pl.repeat(None, len(kept), dtype=pl.String, eager=True),
            "label": labels.gather(kept),
            "is_test": pl.Series([None] * len(kept) if raw.is_test is None else raw.is_test[kept], dtype=pl.Boolean),
            "values": pl.Series(values[kept], dtype=pl.Array(pl.Float32, values.shape[1])),
        }
    )
    words = vocabulary(events["label"])
    if len(words) < 2:
        raise DataError(
            f"all {len(events):,} samples of {settings.path} have the label {words[0] if len(words) else None!r}: "
            "there is nothing to tell apart",
            "Bring samples of two labels at least.",
        )
    items = words.rename("id").to_frame().with_columns(title=pl.lit(None, dtype=pl.String))
    record = {
        "kind": settings.kind,
        "path": settings.path,
        "about": dict(raw.about),
        "files": [asdict(file) for file in raw.files],
        "rows": len(labels),
        "rejected": counts_by_reason(rejected),
        "events": len(events),
        "users": 0,
        "items": len(words),
        "first_event": None,
        "last_event": None,
        "shape": list(raw.shape),
        "names": list(raw.names),
        "digest": samples_digest(events),
    }
    return Ingested(events, items, rejected, record)


def sample_summary(record: dict[str, Any]) -> list[str]:
    """What was found, as plain lines for the console."""
    rejected = ", ".join(f"{count:,} x {reason}" for reason, count in record["rejected"].items()) or "none"
    shape = " x ".join(map(str, record["shape"]))
    return [
        f"read {record['rows']:,} samples of {shape} values from {record['path']}; rejected: {rejected}",
        f"{record['events']:,} samples with {record['items']:,} labels",
    ]
