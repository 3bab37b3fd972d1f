"""What the report shows, as tables: one row a contender, an epoch, or a range of popularity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components.errors import DataError
from components.evaluation.contenders import Contender
from components.evaluation.scoring import Ranking

BUCKETS = 5
CURVES = {"network": pl.String, "epoch": pl.Int64, "train_loss": pl.Float64, "validation_ndcg10": pl.Float64}


def figure_table(
    contenders: Sequence[Contender], figures: Mapping[str, Mapping[str, Any]], column: str
) -> pl.DataFrame:
    """Quality against a cost: ``contender``, ``family``, the cost, ``ndcg10``, for all that have that cost.

    Args:
        contenders: The rows.
        figures: Of each contender.
        column: The cost: ``bytes`` or ``p50_ms``.
    """
    rows = [
        (contender.name, contender.family, float(figures[contender.name][column]), figures[contender.name]["ndcg10"])
        for contender in contenders
        if column in figures[contender.name]
    ]
    schema = {"contender": pl.String, "family": pl.String, column: pl.Float64, "ndcg10": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def curve_table(folder: Path) -> pl.DataFrame:
    """All training curves in a folder of CSV files: ``network``, ``epoch``, ``train_loss``, ``validation_ndcg10``.

    Raises:
        DataError: A file has other columns.
    """
    try:
        tables = [pl.read_csv(path, schema_overrides=CURVES).select(*CURVES) for path in sorted(folder.glob("*.csv"))]
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{folder} holds a file that is no training curve: {error}", "Run its stage again.") from None
    return pl.concat(tables) if tables else pl.DataFrame(schema=CURVES)


def popularity_table(rankings: Mapping[str, Ranking], train_counts: np.ndarray) -> pl.DataFrame:
    """NDCG@10 by how often the target occurs in training, in ranges that hold about as many targets each.

    Args:
        rankings: Of the contenders to show, all over the same targets.
        train_counts: ``(items,)`` training events of each item.

    Returns:
        ``contender``, ``bucket`` from 0, ``fewest`` and ``most`` training events, ``targets``, ``ndcg10``.
    """
    rows: list[tuple[Any, ...]] = []
    for name, found in rankings.items():
        count = train_counts[found.targets]
        edges = np.unique(np.quantile(count, np.linspace(0, 1, BUCKETS + 1)[1:-1], method="lower"))
        # A value of a training count is never divided between two ranges.
        bucket = np.searchsorted(edges, count, side="left")
        for place, number in enumerate(np.unique(bucket)):
            chosen = bucket == number
            within = count[chosen]
            ndcg = float(found.ndcg[chosen].mean())
            rows.append((name, place, int(within.min()), int(within.max()), int(chosen.sum()), round(ndcg, 6)))
    schema = {
        "contender": pl.String,
        "bucket": pl.Int64,
        "fewest": pl.Int64,
        "most": pl.Int64,
        "targets": pl.Int64,
        "ndcg10": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")
