"""Which events of a new data set an earlier model has not learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from components.data.people import user_ids


class Events(Protocol):
    """A prepared data set of who met what and when; each array ``(N,)``."""

    @property
    def users(self) -> int:
        """Number of users."""

    @property
    def user(self) -> np.ndarray:
        """Places in ``users.parquet``."""

    @property
    def item(self) -> np.ndarray:
        """Places in the catalogue."""

    @property
    def timestamp(self) -> np.ndarray:
        """Microseconds since 1970."""

    @property
    def split(self) -> np.ndarray:
        """2 for test events."""

    @property
    def catalogue(self) -> pl.DataFrame:
        """``id`` of each item."""

    @property
    def folder(self) -> Path:
        """Where it was read from."""


def unlearned_events(new: Events, rows: np.ndarray, earlier: Events | None) -> np.ndarray:
    """Those of ``rows`` that ``earlier`` was not trained on or validated with, ascending.

    Args:
        new: The new data set.
        rows: Rows of it, ascending.
        earlier: That of the earlier model; None: there is none, and all rows are left.

    Raises:
        IntegrityError: A table of users is damaged.
    """
    if earlier is None:
        return rows
    taught = _events(earlier, np.flatnonzero(earlier.split != 2)).drop("row")
    left = _events(new, rows).join(taught, on=["user", "item", "timestamp"], how="anti")
    found: np.ndarray = left["row"].sort().to_numpy()
    return found


def _events(dataset: Events, rows: np.ndarray) -> pl.DataFrame:
    """``user`` and ``item`` in the source's words, ``timestamp``, and ``row``."""
    return pl.DataFrame(
        {
            "user": user_ids(dataset).gather(dataset.user[rows]),
            "item": dataset.catalogue["id"].gather(dataset.item[rows]),
            "timestamp": dataset.timestamp[rows],
            "row": rows,
        }
    )
