"""What the report shows, as tables: one row a contender, an epoch, or a group of held-out points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from components.errors import DataError
from components.evaluation.contenders import Contender
from components.tasks.contract import Judgement, Strata

CURVES = {"network": pl.String, "epoch": pl.Int64, "train_loss": pl.Float64, "validation": pl.Float64}


def figure_table(
    contenders: Sequence[Contender], figures: Mapping[str, Mapping[str, Any]], column: str, primary: str
) -> pl.DataFrame:
    """Quality against a cost: ``contender``, ``family``, the cost, ``quality``, for all that have that cost.

    Args:
        contenders: The rows.
        figures: Of each contender.
        column: The cost: ``bytes`` or ``p50_ms``.
        primary: Key of the measure of quality.
    """
    rows = [
        (contender.name, contender.family, float(figures[contender.name][column]), figures[contender.name][primary])
        for contender in contenders
        if column in figures[contender.name]
    ]
    schema = {"contender": pl.String, "family": pl.String, column: pl.Float64, "quality": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def curve_table(folder: Path) -> pl.DataFrame:
    """All training curves in a folder of CSV files: ``network``, ``epoch``, ``train_loss``, ``validation``.

    Raises:
        DataError: A file has other columns.
    """
    try:
        tables = [pl.read_csv(path, schema_overrides=CURVES).select(*CURVES) for path in sorted(folder.glob("*.csv"))]
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{folder} holds a file that is no training curve: {error}", "Run its stage again.") from None
    return pl.concat(tables) if tables else pl.DataFrame(schema=CURVES)


def strata_table(judged: Mapping[str, Judgement], strata: Strata) -> pl.DataFrame:
    """The primary measure by group of held-out points.

    Args:
        judged: Of the contenders to show, all over the same points.
        strata: The groups.

    Returns:
        ``contender``, ``bucket`` from 0, ``group``, ``targets``, ``quality``.
    """
    rows: list[tuple[Any, ...]] = []
    for name, found in judged.items():
        for number, label in enumerate(strata.labels):
            chosen = strata.bucket == number
            rows.append((name, number, label, int(chosen.sum()), round(float(found.values[chosen].mean()), 6)))
    schema = {
        "contender": pl.String,
        "bucket": pl.Int64,
        "group": pl.String,
        "targets": pl.Int64,
        "quality": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")
