"""Tables that ingest and prepare have written, read back."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from components.errors import DataError, IntegrityError


def stored_table(path: Path, stage: str = "prepare") -> pl.DataFrame:
    """A table that a stage has written.

    Raises:
        DataError: It is missing.
        IntegrityError: It is damaged.
    """
    try:
        return pl.read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"{path} is missing", f"Run the stage `{stage}` again.") from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise IntegrityError(f"{path} is damaged: {error}", f"Run the stage `{stage}` again.") from None
