"""Champion and challenger on the same held-out points, each through its package as it is served."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from components.serving.package_folder import VOCABULARY, PackageFolder
from components.serving.predictor import Predictor
from components.tasks.beyond import HeldOut


class Scored(NamedTuple):
    """One model on the held-out points.

    Attributes:
        values: ``(T,)`` float64 with the task's primary measure as their mean.
        cold: Points whose outcome the model has never learned from: unknown to it, or without a training event.
    """

    values: np.ndarray
    cold: int


def score(package: Path, held_out: HeldOut) -> Scored:
    """Ask a package for every held-out point.

    Args:
        package: Folder of the model's package.
        held_out: The points.

    Raises:
        DataError: It is no package, or it cannot answer a request.
        IntegrityError: A file of it is missing or damaged.
    """
    predictor = Predictor(package)
    held_out = held_out.for_package(predictor.signature)
    vocabulary = pl.read_parquet(io.BytesIO(PackageFolder(package).read(VOCABULARY)))
    learned = set(vocabulary.filter(pl.col("train_events") > 0)["id"].to_list())
    values = held_out.values(predictor.ask(request) for request in held_out.requests())
    return Scored(values, held_out.unlearned(learned))
