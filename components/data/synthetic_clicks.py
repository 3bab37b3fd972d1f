"""Impressions drawn from a known rule, so that the whole pipeline can be tried in seconds.

Items are of some kinds. Each user likes one kind and is shown items of all; age decides a little as well. What a user
likes stands in no column: only a model that reads what he or she liked before can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from components.data.rows import FEATURE, RawRows, SourceFile
from components.settings.labelled_source import SyntheticClicksSource

KINDS = 4
_START = 1_704_067_200  # 2024-01-01T00:00:00Z, in seconds.


class SyntheticClicks:
    """The generator as a source."""

    time_unit = "seconds"

    def __init__(self, settings: SyntheticClicksSource) -> None:
        self._settings = settings

    def about(self) -> dict[str, Any]:
        """A name."""
        return {"title": "Synthetic impressions"}

    def files(self) -> list[SourceFile]:
        """None: nothing is read."""
        return []

    def batches(self) -> Iterator[RawRows]:
        """Everything at once."""
        yield RawRows("synthetic", 1, draw_clicks(self._settings))

    def titles(self) -> pl.DataFrame | None:
        """None."""
        return None


def draw_clicks(settings: SyntheticClicksSource) -> pl.DataFrame:
    """``user``, ``item``, ``timestamp``, ``label`` 0 or 1, ``feature.kinds``, ``feature.age``, some of them missing;
    always the same for the same settings."""
    random = np.random.default_rng(settings.seed)
    rows = settings.users * settings.rows_per_user
    user = np.repeat(np.arange(settings.users), settings.rows_per_user)
    item = random.integers(settings.items, size=rows)
    kind, taste = np.arange(settings.items) % KINDS, random.integers(KINDS, size=settings.users)
    age = random.integers(18, 70, size=settings.users).astype(np.float64)
    log_odds = np.where(kind[item] == taste[user], 2.5, -2.0) + (age[user] - 44) / 40
    label = random.random(rows) < 1 / (1 + np.exp(-log_odds))
    age[random.random(settings.users) < 0.1] = np.nan
    # One event a minute, of one user after the other: no two rows of a user have one time.
    return pl.DataFrame(
        {
            "user": user,
            "item": item,
            "timestamp": _START + 60 * np.arange(rows),
            "label": label.astype(np.int8),
            f"{FEATURE}kinds": [f"kind {number}" for number in kind[item]],
            f"{FEATURE}age": age[user],
        }
    )
