"""From checked events to the prepared data set: filter, number, order, split, describe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from components.data.dataset import FEATURES_FILE, RECORD_FILE, SPLITS, content_digest
from components.data.filtering import k_core
from components.data.item_features import DescribedItems, described_items
from components.data.splitting import TEST, TRAIN, VALIDATION, split_events
from components.data.vocabulary import codes, vocabulary
from components.errors import DataError
from components.settings.prepare import PrepareSettings
from components.storage.atomic import new_folder, write_json

SMALLEST = 2
"""Users and items that a data set has at least: with fewer there is nothing to choose from."""


class Prepared(NamedTuple):
    """A data set that is not written yet.

    Attributes:
        events: ``user`` int32, ``item`` int32, ``position`` int32, ``timestamp`` int64, ``split`` int8, ``point`` int64
            (-1 where none), ``weight`` float32 where the source has one, sorted by (user, position).
        items: ``item`` int32, ``id``, ``title``, ``train_events`` int64, and of items with features ``feature_rows``
            and ``feature_shares``.
        users: ``user`` int32, ``id``.
        record: The content of ``dataset.json``.
        features: The content of ``features.parquet``; None where items have no features.
    """

    events: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    record: dict[str, Any]
    features: pl.DataFrame | None = None


def prepare(events: pl.DataFrame, items: pl.DataFrame, settings: PrepareSettings, source_digest: str) -> Prepared:
    """Turn events into a data set; only its content and the order of simultaneous rows matter.

    Args:
        events: ``user``, ``item``, ``timestamp``, ``row`` of ingest; ``weight`` and ``feature.<name>`` where the source
            has them.
        items: ``id``, ``title`` of ingest.
        settings: Floors and split.
        source_digest: The digest in ``source.json``.

    Raises:
        DataError: The floors leave too little, the split leaves a part empty, or the items do not have a feature.
    """
    kept = _core(events, settings)
    user_ids, item_ids = vocabulary(kept["user"]), vocabulary(kept["item"])
    user, item = codes(kept["user"], user_ids), codes(kept["item"], item_ids)
    # Ties in time are common; the source's order decides them, in every run alike.
    order = np.lexsort((kept["row"].to_numpy(), kept["timestamp"].to_numpy(), user))
    user, item, timestamp = user[order], item[order], kept["timestamp"].to_numpy()[order]
    lengths = np.bincount(user)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    position = (np.arange(len(user)) - offsets[user]).astype(np.int32)
    split = split_events(timestamp, offsets, settings)
    point = _points(split, position)
    if point.max() < 0:
        raise DataError(
            f"none of the {len(user):,} events can be learned from: no training event comes after another of its user",
            "Raise prepare.min_user_events in params.yaml, or bring longer histories.",
        )
    popularity = np.bincount(item[split == TRAIN], minlength=len(item_ids))

    described: DescribedItems | None = None
    if settings.item_features:
        described = described_items(kept[order], item, popularity > 0, settings.item_features)
    titles = items.select("id", "title")
    catalogue = (
        pl.DataFrame({"item": np.arange(len(item_ids), dtype=np.int32), "id": item_ids})
        .join(titles, on="id", how="left", maintain_order="left")
        .with_columns(
            train_events=pl.Series(popularity, dtype=pl.Int64),
            **({} if described is None else described.features.columns),
        )
    )
    people = pl.DataFrame({"user": np.arange(len(user_ids), dtype=np.int32), "id": user_ids})
    weight = kept["weight"].to_numpy()[order] if "weight" in kept.columns else None
    table = pl.DataFrame(
        {
            "user": user,
            "item": item,
            "position": position,
            "timestamp": timestamp,
            "split": split,
            "point": point,
            **({} if weight is None else {"weight": weight}),
        }
    )
    unsaid = () if settings.item_features else ("item_features",)
    per_split = np.bincount(split, minlength=len(SPLITS))
    record = {
        "format": 1,
        "digest": content_digest(
            item,
            timestamp,
            split,
            offsets,
            item_ids.to_list(),
            weight=weight,
            item_features=None if described is None else described.features,
        ),
        "source_digest": source_digest,
        "settings": settings.model_dump(mode="json", exclude={"kind", *unsaid}),
        "users": len(user_ids),
        "items": len(item_ids),
        "events": len(user),
        "points": int(point.max()) + 1,
        "events_per_split": {name: int(count) for name, count in zip(SPLITS, per_split, strict=True)},
        "dropped_by_floors": len(events) - len(kept),
        "median_history": float(np.median(lengths)),
        "density": len(user) / (len(user_ids) * len(item_ids)),
        "cold_targets": {
            SPLITS[number]: int((popularity[item[split == number]] == 0).sum()) for number in (VALIDATION, TEST)
        },
        "targets_without_history": {
            SPLITS[number]: int((position[split == number] == 0).sum()) for number in (VALIDATION, TEST)
        },
    }
    if described is None:
        return Prepared(table, catalogue, people, record)
    record["item_features"] = {**described.layout, "changing": described.changing}
    return Prepared(table, catalogue, people, record, described.table)


def write_dataset(folder: Path, prepared: Prepared) -> None:
    """Write the folder that :mod:`components.data.dataset` describes, whole or not at all."""
    with new_folder(folder) as temporary:
        columns = ["user", "item", "position", "timestamp", *({"weight"} & set(prepared.events.columns))]
        for number, name in enumerate(SPLITS):
            rows = prepared.events.filter(pl.col("split") == number)
            rows.select([*columns, "point"] if number == TRAIN else columns).write_parquet(
                temporary / f"{name}.parquet"
            )
        prepared.items.write_parquet(temporary / "items.parquet")
        prepared.users.write_parquet(temporary / "users.parquet")
        if prepared.features is not None:
            prepared.features.write_parquet(temporary / FEATURES_FILE)
        write_json(temporary / RECORD_FILE, prepared.record)


def summary(record: Mapping[str, Any]) -> list[str]:
    """What prepare made, as plain lines for the console."""
    parts = ", ".join(f"{count:,} {name}" for name, count in record["events_per_split"].items())
    cold = ", ".join(f"{count:,} {name}" for name, count in record["cold_targets"].items())
    lines = [
        f"{record['users']:,} users, {record['items']:,} items, {record['events']:,} events "
        f"({record['dropped_by_floors']:,} dropped by the floors); median history {record['median_history']:g}, "
        f"density {record['density']:.3%}",
        f"split {record['settings']['split']}: {parts}; {record['points']:,} prediction points; cold targets: {cold}",
    ]
    if layout := record.get("item_features"):
        names = ", ".join([*layout["single"], *layout["bags"], *layout["numbers"]])
        lines.append(f"features of items: {names}; {layout['rows'] + 2 * len(layout['numbers']):,} rows of embeddings")
        lines += [
            f"{count:,} items have more than one {name!r}: the newest counts"
            for name, count in layout["changing"].items()
        ]
    return lines


def _core(events: pl.DataFrame, settings: PrepareSettings) -> pl.DataFrame:
    user = codes(events["user"], vocabulary(events["user"]))
    item = codes(events["item"], vocabulary(events["item"]))
    kept = events.filter(k_core(user, item, settings.min_user_events, settings.min_item_events))
    users, items = kept["user"].n_unique(), kept["item"].n_unique()
    if users < SMALLEST or items < SMALLEST:
        floors = f"users below {settings.min_user_events} events and items below {settings.min_item_events}"
        raise DataError(
            f"dropping {floors} leaves {users} users and {items} items of {len(events):,} events "
            f"({events['user'].n_unique():,} users, {events['item'].n_unique():,} items)",
            "Lower prepare.min_user_events or prepare.min_item_events in params.yaml, or bring more data.",
        )
    return kept


def _points(split: np.ndarray, position: np.ndarray) -> np.ndarray:
    """``(E,)`` int64: numbers the training events that have a history to be predicted from, -1 for all others."""
    target = (split == TRAIN) & (position > 0)
    return np.where(target, np.cumsum(target) - 1, -1).astype(np.int64)
