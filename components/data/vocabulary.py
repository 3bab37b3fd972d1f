"""From ids of any form to dense numbers in an order that depends on nothing but the ids."""

from __future__ import annotations

import numpy as np
import polars as pl


def vocabulary(ids: pl.Series) -> pl.Series:
    """The distinct ids in their fixed order: whole numbers by value first, then all others by their text.

    Args:
        ids: ``(E,)`` text, with repetitions, without nulls.

    Returns:
        ``(K,)`` text.
    """
    number = pl.col("id").str.extract(r"^([0-9]{1,18})$").cast(pl.Int64)
    return ids.unique().rename("id").to_frame().sort(number, pl.col("id"), nulls_last=True, maintain_order=True)["id"]


def codes(ids: pl.Series, words: pl.Series) -> np.ndarray:
    """The place of each id in a vocabulary that holds all of them.

    Args:
        ids: ``(E,)`` text.
        words: ``(K,)`` text, distinct.

    Returns:
        ``(E,)`` int32.
    """
    return ids.cast(pl.Enum(words)).to_physical().cast(pl.Int32).to_numpy()
