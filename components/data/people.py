"""Who the users of a prepared data set are in the source's words; no stage that trains has to know."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import polars as pl

from components.errors import IntegrityError


class OfUsers(Protocol):
    """A prepared data set of numbered users."""

    @property
    def users(self) -> int:
        """Their number."""

    @property
    def folder(self) -> Path:
        """Where it was read from."""


def user_ids(dataset: OfUsers) -> pl.Series:
    """The source's id of each user, ``(users,)`` text.

    Raises:
        IntegrityError: ``users.parquet`` is missing or damaged.
    """
    path = dataset.folder / "users.parquet"
    try:
        ids = pl.read_parquet(path).sort("user")["id"]
    except (pl.exceptions.PolarsError, OSError) as error:
        raise IntegrityError(f"{path} is damaged: {error}", "Run the stage `prepare` again.") from None
    if len(ids) != dataset.users:
        raise IntegrityError(
            f"{path} names {len(ids):,} users, not {dataset.users:,}", "Run the stage `prepare` again."
        )
    return ids
