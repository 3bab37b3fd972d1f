"""What is known of items beside which one they are: rows of one table of embeddings, and how much each counts.

An item's embedding is its own row and, added to it, the weighted sum of the rows of its features. A category counts 1,
and of several values each an equal part of 1; a number counts as much as it is, normalised. Missing values have a row
for each feature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from components.data.features import Features, learned_features, require_features
from components.data.rows import FEATURE
from components.settings.labelled_prepare import Feature
from components.storage.digests import array_digest

MISSING, OTHER, BUCKET, NUMBER, VALUE = "missing", "other", "bucket", "number", "value"
"""What a row of the table stands for; ``other``: all values without a row of their own."""


class ItemFeatures(NamedTuple):
    """The features of a catalogue.

    Attributes:
        rows: ``(items, C)`` int32, rows of the table of embeddings; 0 for nothing.
        shares: ``(items, C)`` float32, how much each of them counts; 0 for nothing.
        keys: ``(R,)`` int64, what each row of the table stands for, in every data set the same: by it a row is found
            again when the values have changed.
    """

    rows: np.ndarray
    shares: np.ndarray
    keys: np.ndarray

    def digests(self) -> list[str]:
        """SHA-256 of each array."""
        return [array_digest(array) for array in self]

    @property
    def columns(self) -> dict[str, pl.Series]:
        """Columns of ``items.parquet``."""
        width = self.rows.shape[1]
        return {
            "feature_rows": pl.Series(self.rows, dtype=pl.Array(pl.Int32, width)),
            "feature_shares": pl.Series(self.shares, dtype=pl.Array(pl.Float32, width)),
        }


class DescribedItems(NamedTuple):
    """Features of items, and what they are made of.

    Attributes:
        features: Of each item.
        table: ``row`` int32, ``feature``, ``means`` (one of the constants of this module), ``value`` text or null.
        layout: See :func:`components.data.features.learned_features`.
        changing: Of how many items the source's rows say different things, by feature; 0 is left out.
    """

    features: ItemFeatures
    table: pl.DataFrame
    layout: dict[str, Any]
    changing: dict[str, int]


def described_items(
    events: pl.DataFrame, item: np.ndarray, known: np.ndarray, settings: Mapping[str, Feature]
) -> DescribedItems:
    """The features of items, from what the rows of events say of them: the newest that says something counts.

    Args:
        events: ``timestamp``, ``row``, ``feature.<name>`` text or null.
        item: ``(E,)`` int32, the item of each event; all of 0 to K - 1 are there.
        known: ``(K,)`` bool, items of training events: values, means and deviations are theirs.
        settings: The features.

    Raises:
        DataError: The source has no such feature, or it is numeric and holds no numbers.
    """
    require_features(events, settings, "prepare.item_features")
    names = list(settings)
    said = (
        events.select("timestamp", "row", *(pl.col(FEATURE + name).cast(pl.String).alias(name) for name in names))
        .with_columns(pl.Series(".item", item))
        .sort("timestamp", "row")
        .group_by(".item")
        .agg(
            *(pl.col(name).drop_nulls().last() for name in names),
            *(pl.col(name).drop_nulls().n_unique().alias(f".{name}") for name in names),
        )
        .sort(".item")
    )
    texts = {name: said[name] for name in names}
    layout, vocabularies = learned_features({name: said[name].filter(pl.Series(known)) for name in names}, settings)
    table = _table(layout, vocabularies)
    features = _encoded(Features(layout, vocabularies), texts, table)
    changing = {name: int((said[f".{name}"] > 1).sum()) for name in names}
    return DescribedItems(features, table, layout, {name: count for name, count in changing.items() if count})


def read_item_features(items: pl.DataFrame, table: pl.DataFrame) -> ItemFeatures:
    """What :func:`described_items` gave.

    Args:
        items: ``items.parquet``.
        table: ``features.parquet``.
    """
    rows, shares = (items[name].to_numpy() for name in ("feature_rows", "feature_shares"))
    return ItemFeatures(np.ascontiguousarray(rows), np.ascontiguousarray(shares), _keys(table))


def _encoded(features: Features, texts: Mapping[str, pl.Series], table: pl.DataFrame) -> ItemFeatures:
    layout = features.layout
    categories, numbers = features.categories(texts), features.numbers(texts)
    given = categories > 0
    parts = given.astype(np.float32)
    first = len(layout["single"])
    for bag in layout["bags"].values():
        own = slice(first, first + bag["most"])
        parts[:, own] /= given[:, own].sum(axis=1, keepdims=True)
        first += bag["most"]
    rows, shares = [categories], [parts]
    for number, feature in enumerate(layout["numbers"].values()):
        value, there = numbers[:, number, None], np.isfinite(numbers[:, number, None])
        missing = layout["rows"] + 2 * number
        rows.append(np.where(there, missing + 1, missing))
        shares.append(np.where(there, (value - feature["mean"]) / feature["scale"], 1.0))
    return ItemFeatures(
        np.concatenate(rows, axis=1).astype(np.int32),
        np.concatenate(shares, axis=1).astype(np.float32),
        _keys(table),
    )


def _table(layout: Mapping[str, Any], vocabularies: pl.DataFrame) -> pl.DataFrame:
    """What each row of the table stands for, in the layout of :class:`Features`, numbers behind it."""
    found: list[tuple[int, str | None, str, str | None]] = [(0, None, MISSING, None)]
    for name, feature in {**layout["single"], **layout["bags"]}.items():
        found.append((feature["first"], name, MISSING, None))
        if "buckets" in feature:
            found += [(feature["first"] + 1 + each, name, BUCKET, str(each)) for each in range(feature["buckets"])]
        else:
            found.append((feature["first"] + 1, name, OTHER, None))
    found += [(row, name, VALUE, value) for name, value, row in vocabularies.iter_rows()]
    for number, name in enumerate(layout["numbers"]):
        row = layout["rows"] + 2 * number
        found += [(row, name, MISSING, None), (row + 1, name, NUMBER, None)]
    schema = {"row": pl.Int32, "feature": pl.String, "means": pl.String, "value": pl.String}
    return pl.DataFrame(found, schema=schema, orient="row").sort("row")


def _keys(table: pl.DataFrame) -> np.ndarray:
    texts = ("\0".join(part or "" for part in row) for row in table.select("feature", "means", "value").iter_rows())
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64)
