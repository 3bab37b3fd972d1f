"""From checked samples to the prepared data set: number the labels, split, describe."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl

from components.data.dataset import RECORD_FILE, SPLITS
from components.data.samples import content_digest, read_samples, values_of
from components.data.vocabulary import codes, vocabulary
from components.errors import DataError
from components.settings.sample_prepare import SamplePrepareSettings
from components.storage.atomic import new_folder, write_json

TRAIN, VALIDATION, TEST = range(3)


def prepare_samples(ingested: Path, folder: Path, settings: SamplePrepareSettings) -> list[str]:
    """Write the data set that :mod:`components.data.samples` describes, whole or not at all.

    Raises:
        DataError: A split would be empty, or training would see one label only.
    """
    samples, labels, source = read_samples(ingested)
    ids = vocabulary(samples["label"])
    label = codes(samples["label"], ids)
    apart = None if samples["is_test"].null_count() else samples["is_test"].to_numpy()
    split, seen = split_by_label(label, apart, settings, what="samples", labels=len(ids))
    counts = np.bincount(split, minlength=len(SPLITS))
    order = np.argsort(split, kind="stable")
    values, label, split = values_of(samples)[order], label[order], split[order]
    rows = samples["row"].to_numpy()[order]
    record: dict[str, Any] = {
        "format": 1,
        "digest": content_digest(values, label, split, ids.to_list()),
        "source_digest": source["digest"],
        "settings": settings.model_dump(mode="json"),
        "shape": source["shape"],
        "names": source["names"],
        "users": 0,
        "items": len(ids),
        "events": len(samples),
        "points": int(counts[TRAIN]),
        "events_per_split": {name: int(count) for name, count in zip(SPLITS, counts, strict=True)},
    }
    with new_folder(folder) as temporary:
        table = pl.DataFrame(
            {"row": rows, "label": label, "values": pl.Series(values, dtype=pl.Array(pl.Float32, values.shape[1]))}
        )
        for number, name in enumerate(SPLITS):
            part = table.filter(pl.Series(split == number))
            if number == TRAIN:
                part = part.with_columns(point=pl.int_range(len(part), dtype=pl.Int64))
            part.write_parquet(temporary / f"{name}.parquet")
        pl.DataFrame({"item": np.arange(len(ids), dtype=np.int32), "id": ids}).join(
            labels, on="id", how="left", maintain_order="left"
        ).with_columns(train_events=pl.Series(seen, dtype=pl.Int64)).write_parquet(temporary / "items.parquet")
        write_json(temporary / RECORD_FILE, record)
    parts = ", ".join(f"{count:,} {name}" for name, count in record["events_per_split"].items())
    return [f"{len(samples):,} samples of {len(ids)} labels: {parts}"]


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
    if counts.min() == 0 or (seen > 0).sum() < 2:
        raise DataError(
            f"of {len(label):,} {what} {counts[TRAIN]:,} are for training, with {int((seen > 0).sum())} labels; "
            f"{counts[VALIDATION]:,} for validation, {counts[TEST]:,} for the test",
            f"Bring more {what}, or change prepare.validation_share and prepare.test_share in params.yaml.",
        )
    return split, seen
