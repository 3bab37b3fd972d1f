"""From a source of samples to checked ones: what is missing, endless or there twice is put aside with the reason."""

from __future__ import annotations

import numpy as np
import polars as pl

from components.data.ingesting import Ingested
from components.data.ingesting_points import ingested, label_fault
from components.data.samples import RawSamples, samples_digest
from components.data.validation import require_acceptable
from components.settings.sample_source import SampleSource

_NOT_FINITE, _AGAIN = "a value is missing or not finite", "the same sample again"


def ingest_samples(raw: RawSamples, settings: SampleSource) -> Ingested:
    """Check what was read of a source of samples.

    Args:
        raw: From :func:`components.data.sample_sources.open_samples`.
        settings: ``scenarios.<scenario>.source``.

    Raises:
        DataError: It has too many bad samples, or fewer than two labels.
    """
    labels = raw.labels.cast(pl.String).str.strip_chars()
    finite = np.isfinite(raw.values).all(axis=1)
    values = np.where(finite[:, None], raw.values, 0.0).astype(np.float32)
    faults = labels.to_frame("label").select(label_fault(pl.col("label"))).to_series().to_list()
    reasons = [
        raw.faults.get(row) or fault or (None if is_finite else _NOT_FINITE)
        for row, (fault, is_finite) in enumerate(zip(faults, finite.tolist(), strict=True))
    ]
    # A sample that came twice could stand in training and test at once. Of a test sample, the copy in training goes.
    sound = np.flatnonzero([reason is None for reason in reasons])
    apart = np.zeros(len(values), dtype=bool) if raw.is_test is None else raw.is_test
    sound = sound[np.argsort(~apart[sound], kind="stable")]
    _, first = np.unique(values[sound], axis=0, return_index=True)
    for row in np.delete(sound, first).tolist():
        reasons[row] = _AGAIN
    bad, kept = (np.flatnonzero([(reason is None) is good for reason in reasons]) for good in (False, True))
    rejected = pl.DataFrame(
        {
            "file": pl.repeat(raw.file, len(bad), dtype=pl.String, eager=True)
            if isinstance(raw.file, str)
            else raw.file.gather(bad),
            "row": bad + 1,
            "user": pl.repeat(None, len(bad), dtype=pl.String, eager=True),
            "item": labels.gather(bad),
            "timestamp": pl.repeat(None, len(bad), dtype=pl.String, eager=True),
            "reason": pl.Series([reasons[row] for row in bad.tolist()], dtype=pl.String),
        }
    )
    require_acceptable(rejected, len(labels), settings.max_rejected_share, shown=("item",))
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
    return ingested(
        events,
        rejected,
        settings,
        what="samples",
        rows=len(labels),
        about=raw.about,
        files=raw.files,
        digest=samples_digest(events),
        shape=list(raw.shape),
        names=list(raw.names),
    )
