"""Which points with a label are learned from, which decide when to stop, and which measure the result."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import polars as pl

from components.data.dataset import SPLITS
from components.data.points import TEST, TRAIN, VALIDATION
from components.errors import DataError


class SplitSettings(Protocol):
    """Shares of a split."""

    @property
    def validation_share(self) -> float:
        """For validation."""

    @property
    def test_share(self) -> float:
        """For the test, where the source has none of its own."""

    @property
    def seed(self) -> int:
        """Of the draw."""


def split_by_label(
    label: np.ndarray, apart: np.ndarray | None, settings: SplitSettings, *, what: str, labels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divide every label in the same shares; what the source keeps for a test stays the test.

    Args:
        label: ``(N,)`` number of the label.
        apart: ``(N,)`` bool, the source's own test; None where it has none.
        settings: The shares.
        what: Is divided, in plural, for messages.
        labels: How many there are.

    Returns:
        The split ``(N,)`` int8, and the training count of each label.

    Raises:
        DataError: A split would be empty, or training would see one label only.
    """
    random = np.random.default_rng(settings.seed)
    split = np.full(len(label), TRAIN, dtype=np.int8)
    if apart is not None:
        split[apart] = TEST
    for number in range(int(label.max()) + 1):
        own = random.permutation(np.flatnonzero((label == number) & (split == TRAIN)))
        test = 0 if apart is not None else round(len(own) * settings.test_share)
        validation = round(len(own) * settings.validation_share)
        split[own[:test]] = TEST
        split[own[test : test + validation]] = VALIDATION
    counts = np.bincount(split, minlength=len(SPLITS))
    seen = np.bincount(label[split == TRAIN], minlength=labels)
    learned = int((seen > 0).sum())
    if counts.min() == 0 or learned < 2:
        raise DataError(
            f"of {len(label):,} {what} {counts[TRAIN]:,} are for training, with {learned} of {labels} labels; "
            f"{counts[VALIDATION]:,} for validation, {counts[TEST]:,} for the test",
            f"Bring more {what}, or change prepare.validation_share and prepare.test_share in params.yaml.",
        )
    return split, seen


def counted(labels: pl.DataFrame, ids: pl.Series, seen: np.ndarray) -> pl.DataFrame:
    """The labels ``id``, ``title``, ``train_events`` in the order of their numbers.

    Args:
        labels: ``id`` and ``title``, as ingest wrote them.
        ids: In order.
        seen: Training points of each, from :func:`split_by_label`.
    """
    table = ids.rename("id").to_frame().join(labels, on="id", how="left", maintain_order="left")
    return table.with_columns(train_events=pl.Series(seen, dtype=pl.Int64))
