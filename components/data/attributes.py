"""What a source knows of its rows beside who met what when, where nothing else is made of them."""

from __future__ import annotations

import polars as pl

from components.data.features import written_features
from components.data.rows import RawRows


class Attributes:
    """Collects the features of batches, and finds those of the rows that passed the check."""

    def __init__(self) -> None:
        self._batches: list[pl.DataFrame] = []
        self._seen = 0

    def add(self, batch: RawRows) -> None:
        """Take in one batch, in the order of the source."""
        raw = batch.rows
        numbers = pl.int_range(self._seen, self._seen + len(raw), eager=True).alias("row")
        self._batches.append(pl.DataFrame([numbers, *written_features(raw)]))
        self._seen += len(raw)

    def joined(self, events: pl.DataFrame) -> pl.DataFrame:
        """Events with ``feature.<name>`` text or null."""
        return events.join(pl.concat(self._batches), on="row", how="left", maintain_order="left")
