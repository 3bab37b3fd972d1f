"""From checked samples to the prepared data set: number the labels, split, describe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components.data.dataset import SPLITS
from components.data.points import TRAIN, write_points
from components.data.samples import content_digest, read_samples, values_of
from components.data.shifting import with_moved_copies
from components.data.splitting_points import counted, split_by_label
from components.data.vocabulary import codes, vocabulary
from components.errors import SettingsError
from components.settings.sample_prepare import SamplePrepareSettings
from components.storage.atomic import new_folder


def prepare_samples(ingested: Path, folder: Path, settings: SamplePrepareSettings) -> list[str]:
    """Write the data set that :mod:`components.data.samples` describes, whole or not at all.

    Raises:
        DataError: A split would be empty, or training would see one label only.
        SettingsError: Copies are to be moved of what is no image.
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
    if settings.moved_copies:
        trained = int(counts[TRAIN])
        copies = _copies(values[:trained], source["shape"], settings.moved_copies)
        again = np.concatenate([np.tile(np.arange(trained), len(copies) // trained), np.arange(trained, len(split))])
        values = np.concatenate([copies, values[trained:]])
        label, split, rows = label[again], split[again], rows[again]
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
        "points": int((split == TRAIN).sum()),
        "events_per_split": {name: int(count) for name, count in zip(SPLITS, counts, strict=True)},
    }
    with new_folder(folder) as temporary:
        table = pl.DataFrame(
            {"row": rows, "label": label, "values": pl.Series(values, dtype=pl.Array(pl.Float32, values.shape[1]))}
        )
        write_points(temporary, table, split, counted(labels, ids, seen), record)
    parts = ", ".join(f"{count:,} {name}" for name, count in record["events_per_split"].items())
    lines = [f"{len(samples):,} samples of {len(ids)} labels: {parts}"]
    if settings.moved_copies:
        lines.append(f"{record['points']:,} points to learn from, moved copies of the training images among them")
    return lines


def _copies(values: np.ndarray, shape: list[int], steps: int) -> np.ndarray:
    if len(shape) != 2:
        raise SettingsError(
            f"`prepare.moved_copies` is for images, and these samples have {' x '.join(map(str, shape))} values",
            "Set it to 0.",
        )
    return with_moved_copies(values, (shape[0], shape[1]), steps)
