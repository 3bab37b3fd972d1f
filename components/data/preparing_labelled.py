"""From checked rows with a label to the prepared data set: features, histories in order, split, points."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components.data.dataset import RECORD_FILE, SPLITS
from components.data.events import read_ingested
from components.data.features import Features, learned_features, require_features
from components.data.labelled import content_digest, words_of
from components.data.rows import FEATURE
from components.data.splitting import TEST, TRAIN, VALIDATION, split_by_time
from components.data.vocabulary import codes, vocabulary
from components.errors import DataError
from components.settings.labelled_prepare import ITEM, USER, LabelledPrepareSettings
from components.storage.atomic import new_folder, write_json


def prepare_labelled(ingested: Path, folder: Path, settings: LabelledPrepareSettings) -> list[str]:
    """Write the data set that :mod:`components.data.labelled` describes, whole or not at all.

    Raises:
        DataError: A feature is not there or holds no numbers, a split would be empty or have one label only.
    """
    events, items, source_digest = read_ingested(ingested)
    if "label" not in events.columns:
        raise DataError(f"{ingested / 'events.parquet'} holds events without a label", "Choose another `source`.")
    require_features(events, settings.features, "prepare.features")
    user_ids, item_ids = vocabulary(events["user"]), vocabulary(events["item"])
    user, item = codes(events["user"], user_ids), codes(events["item"], item_ids)
    # Ties in time are common; the source's order decides them, in every run alike.
    order = np.lexsort((events["row"].to_numpy(), events["timestamp"].to_numpy(), user))
    events, user, item = events[order], user[order], item[order]
    timestamp, label = events["timestamp"].to_numpy(), events["label"].cast(pl.Int8).to_numpy()
    lengths = np.bincount(user)
    position = np.arange(len(user)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    split = _split(timestamp, lengths, position, settings)
    _require_both_labels(label, split)
    point = _points(label, split, settings)
    columns = {
        name: events[name if name in (USER, ITEM) else FEATURE + name].cast(pl.String) for name in settings.features
    }
    layout, vocabularies = _learned(columns, split == TRAIN, settings)
    features = Features(layout, vocabularies)
    arrays: dict[str, np.ndarray] = {
        "user": user,
        "item": item,
        "position": position.astype(np.int32),
        "timestamp": timestamp,
        "label": label,
        "split": split,
        "point": point,
        "categories": features.categories(columns),
        "numbers": features.numbers(columns),
    }
    counts = np.bincount(item[split == TRAIN], minlength=len(item_ids))
    # As they were written, for another model than the one of these vocabularies to be asked about the test rows.
    written = events.select(pl.col(f"^{re.escape(FEATURE)}.*$").cast(pl.String)).filter(pl.Series(split == TEST))
    # What the last row of an item says of it.
    last = np.zeros(len(item_ids), np.int64)
    last[item] = np.arange(len(item))
    known = [columns[name].gather(last).alias(FEATURE + name) for name in settings.of_item]
    catalogue = _catalogue(item_ids, items, counts).with_columns(known)
    words = words_of(catalogue, vocabularies, written)
    per_split = np.bincount(split, minlength=len(SPLITS))
    record = {
        "format": 1,
        "digest": content_digest(arrays, words),
        "source_digest": source_digest,
        "settings": settings.model_dump(mode="json"),
        "features": layout,
        "users": len(user_ids),
        "items": len(item_ids),
        "events": len(user),
        "points": int((point >= 0).sum()),
        "events_per_split": {name: int(count) for name, count in zip(SPLITS, per_split, strict=True)},
        "cold_targets": {
            name: int((counts[item[split == number]] == 0).sum())
            for number, name in ((VALIDATION, "validation"), (TEST, "test"))
        },
        "share_of_yes": {name: float(label[split == number].mean()) for number, name in enumerate(SPLITS)},
        "median_history": float(np.median(lengths)),
    }
    people = pl.DataFrame({"user": np.arange(len(user_ids), dtype=np.int32), "id": user_ids})
    with new_folder(folder) as temporary:
        table = _table(arrays)
        for number, name in enumerate(SPLITS):
            part = table.filter(pl.Series(split == number))
            part = part if number == TRAIN else part.drop("point")
            part = part.hstack(written) if number == TEST else part
            part.write_parquet(temporary / f"{name}.parquet")
        catalogue.write_parquet(temporary / "items.parquet")
        people.write_parquet(temporary / "users.parquet")
        vocabularies.write_parquet(temporary / "categories.parquet")
        write_json(temporary / RECORD_FILE, record)
    return _summary(record)


def _learned(
    columns: Mapping[str, pl.Series], training: np.ndarray, settings: LabelledPrepareSettings
) -> tuple[dict[str, Any], pl.DataFrame]:
    """See :func:`learned_features`; of the layout also ``target`` (the column of the item), ``history``, ``of_item``
    and ``privileged``."""
    # The item first: a history is of its rows. Privileged features last: a network without them has a shorter table.
    order = sorted(settings.features, key=lambda name: (name != ITEM, name in settings.privileged))
    kept = {name: columns[name].filter(pl.Series(training)) for name in order}
    layout, vocabularies = learned_features(kept, {name: settings.features[name] for name in order})
    layout |= {
        "target": list(layout["single"]).index(ITEM),
        "history": None if settings.history is None else settings.history.model_dump(mode="json"),
        "of_item": list(settings.of_item),
        "privileged": list(settings.privileged),
    }
    return layout, vocabularies


def _split(
    timestamp: np.ndarray, lengths: np.ndarray, position: np.ndarray, settings: LabelledPrepareSettings
) -> np.ndarray:
    if settings.split == "temporal":
        return split_by_time(timestamp, settings.validation_share, settings.test_share)
    own = np.repeat(lengths, lengths)
    test, validation = (np.floor(own * share + 1e-9) for share in (settings.test_share, settings.validation_share))
    split = np.where(position >= own - test, TEST, np.where(position >= own - test - validation, VALIDATION, TRAIN))
    return split.astype(np.int8)


def _require_both_labels(label: np.ndarray, split: np.ndarray) -> None:
    for number, name in enumerate(("training", "validation", "test")):
        own = label[split == number]
        yes = int(own.sum())
        if yes in (0, len(own)):
            said = "no row at all" if not len(own) else f"{len(own):,} rows, all with a {'yes' if yes else 'no'}"
            raise DataError(
                f"the {name} part has {said}: there is nothing to tell apart",
                "Check source.columns.label and source.positive_from, bring more rows, or change prepare.test_share "
                "and prepare.validation_share in params.yaml.",
            )


def _points(label: np.ndarray, split: np.ndarray, settings: LabelledPrepareSettings) -> np.ndarray:
    learned = split == TRAIN
    if settings.negatives_kept < 1:
        drawn = np.random.default_rng(settings.seed).random(len(label)) < settings.negatives_kept
        learned &= drawn | (label == 1)
        if not (label[learned] == 0).any():
            raise DataError(
                f"prepare.negatives_kept ({settings.negatives_kept}) leaves no training row with a no", "Raise it."
            )
    return np.where(learned, np.cumsum(learned) - 1, -1).astype(np.int64)


def _catalogue(ids: pl.Series, titles: pl.DataFrame, counts: np.ndarray) -> pl.DataFrame:
    return (
        pl.DataFrame({"item": np.arange(len(ids), dtype=np.int32), "id": ids})
        .join(titles.select("id", "title"), on="id", how="left", maintain_order="left")
        .with_columns(pl.Series("train_events", counts, dtype=pl.Int64))
    )


def _table(arrays: Mapping[str, np.ndarray]) -> pl.DataFrame:
    plain = {name: array for name, array in arrays.items() if array.ndim == 1 and name != "split"}
    wide = [
        pl.Series(name, array, dtype=pl.Array(pl.Int32 if name == "categories" else pl.Float32, array.shape[1]))
        for name, array in arrays.items()
        if array.ndim == 2 and array.shape[1]
    ]
    return pl.DataFrame(plain).with_columns(wide)


def _summary(record: Mapping[str, Any]) -> list[str]:
    parts = ", ".join(
        f"{count:,} {name} ({record['share_of_yes'][name]:.1%} yes)"
        for name, count in record["events_per_split"].items()
    )
    layout = record["features"]
    names = ", ".join([*layout["single"], *layout["bags"], *layout["numbers"]])
    return [
        f"{record['users']:,} users, {record['items']:,} items; features: {names}; "
        f"{layout['rows']:,} rows of embeddings",
        f"split {record['settings']['split']}: {parts}; {record['points']:,} prediction points",
    ]
