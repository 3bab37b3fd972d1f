"""A package of either kind, loaded: of one model, or of two that answer together."""

from __future__ import annotations

from pathlib import Path

from components.errors import RecstillError
from components.serving.package_folder import RECORD
from components.serving.predictor import Predictor
from components.serving.two_stage import TwoStagePredictor
from components.storage.atomic import read_json

Opened = Predictor | TwoStagePredictor
"""Either."""


def open_package(folder: Path, threads: int = 1) -> Opened:
    """Load a package.

    Args:
        folder: The package.
        threads: Threads within one operator of a model.

    Raises:
        DataError: The folder is no package.
        IntegrityError: A file is missing, damaged, or not the one that the package was made with.
    """
    try:
        record = read_json(folder / RECORD)
    except RecstillError:
        record = None  # which is told in the words of all packages
    if isinstance(record, dict) and record.get("parts"):
        return TwoStagePredictor(folder, threads)
    return Predictor(folder, threads)
