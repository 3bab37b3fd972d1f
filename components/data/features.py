"""From the columns of a row to what a network reads: rows of one table of embeddings, and numbers.

Every feature of categories has its own range of rows: first the one for a value that is missing, then, of a vocabulary,
the one for a value that is not in it, then those of its values or buckets. Row 0 of the table stands for nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from components.data.ids import is_given
from components.data.rows import FEATURE
from components.data.vocabulary import vocabulary
from components.errors import DataError
from components.settings.base import nearest
from components.settings.labelled_prepare import ITEM, USER, Feature, HashedFeature, NumericFeature, VocabularyFeature

LIST_SEPARATOR = "|"
"""What stands between the values of a column of lists."""


def as_text(values: pl.Series) -> pl.Series:
    """Values as text, whatever a file has them in, null where one is missing; whole numbers without a point."""
    if isinstance(values.dtype, pl.List):
        values = values.cast(pl.List(pl.String)).list.join(LIST_SEPARATOR, ignore_nulls=True)
    if values.dtype.is_float():
        column = pl.col("value")
        whole = column.is_finite() & (column == column.round()) & (column.abs() < 2**53)
        text = (
            pl.when(whole).then(column.cast(pl.Int64, strict=False).cast(pl.String)).otherwise(column.cast(pl.String))
        )
        given = values.rename("value").to_frame().select(text)["value"]
    else:
        given = values.cast(pl.String).str.strip_chars()
    return pl.select(pl.when(is_given(values) & (given != "")).then(given)).to_series()


def written_features(rows: pl.DataFrame) -> list[pl.Series]:
    """The columns ``feature.<name>`` of a source's rows as text."""
    return [as_text(rows[name]).alias(name) for name in rows.columns if name.startswith(FEATURE)]


def text_of(value: Any) -> str | None:
    """The same of one value of a request."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return LIST_SEPARATOR.join(text for text in map(text_of, value) if text) or None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    return str(value).strip() or None


def in_column_order(layout: Mapping[str, Any]) -> dict[str, Any]:
    """A layout as it was learned: features in the order of their columns, where JSON has them by name.

    Args:
        layout: ``features`` of ``dataset.json`` or of a package's ``signature.json``, as it was read.
    """
    kinds = {
        kind: dict(sorted(layout[kind].items(), key=lambda named: named[1]["first"])) for kind in ("single", "bags")
    }
    numbers = sorted(layout["numbers"].items(), key=lambda named: named[1].get("column", 0))
    return {**layout, **kinds, "numbers": dict(numbers)}


class Features:
    """The layout of the features, and what each value becomes.

    Args:
        layout: See :func:`learned_features`, or :func:`in_column_order` where it was read.
        vocabularies: ``feature``, ``value``, ``row``.
    """

    def __init__(self, layout: Mapping[str, Any], vocabularies: pl.DataFrame) -> None:
        self.layout = layout
        self._rows: dict[str, dict[str, int]] = {name: {} for name in (*layout["single"], *layout["bags"])}
        for feature, value, row in vocabularies.select("feature", "value", "row").iter_rows():
            self._rows[feature][value] = row

    @property
    def names(self) -> list[str]:
        """Every column that is read, but for privileged ones."""
        every = (*self.layout["single"], *self.layout["bags"], *self.layout["numbers"])
        return [name for name in every if name not in self.layout["privileged"]]

    @property
    def single(self) -> list[str]:
        """Features of one category, in the order of the columns."""
        return list(self.layout["single"])

    def known(self, name: str, value: str) -> bool:
        """Whether a value has a row of its own or a bucket."""
        return "buckets" in self._of(name) or value in self._rows[name]

    def row(self, name: str, value: str | None) -> int:
        """The row of a value of a feature."""
        feature = self._of(name)
        if value is None:
            return int(feature["first"])
        if "buckets" in feature:
            return int(feature["first"]) + 1 + bucket(name, value, feature["buckets"])
        return self._rows[name].get(value, int(feature["first"]) + 1)

    def categories(self, columns: Mapping[str, pl.Series]) -> np.ndarray:
        """``(N, C)`` int32 rows of the table, from text ``(N,)`` a feature."""
        parts = [self._mapped(name, columns[name])[:, None] for name in self.layout["single"]]
        parts += [self._bag(name, columns[name]) for name in self.layout["bags"]]
        length = len(next(iter(columns.values())))
        return np.concatenate(parts, axis=1) if parts else np.zeros((length, 0), np.int32)

    def numbers(self, columns: Mapping[str, pl.Series]) -> np.ndarray:
        """``(N, D)`` float32, NaN where one is missing, from text ``(N,)`` a feature.

        Raises:
            DataError: A value is no number; names the first such row.
        """
        found = [_as_numbers(name, columns[name]) for name in self.layout["numbers"]]
        length = len(next(iter(columns.values())))
        return np.stack(found, axis=1).astype(np.float32) if found else np.zeros((length, 0), np.float32)

    def values_of(self, name: str, text: str | None) -> list[str]:
        """The values that a text stands for: itself, or its parts, each once."""
        feature = self.layout["bags"].get(name)
        if feature is None or text is None:
            return [] if text is None else [text]
        parts = (part.strip() for part in text.split(feature["separator"]))
        return list(dict.fromkeys(part for part in parts if part))[: feature["most"]]

    def _of(self, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.layout["single"].get(name) or self.layout["bags"][name]
        return found

    def _mapped(self, name: str, texts: pl.Series) -> np.ndarray:
        words = texts.unique()
        rows = pl.Series([self.row(name, word) for word in words], dtype=pl.Int32)
        both = pl.DataFrame({"word": words, "row": rows})
        joined = (
            texts.rename("word").to_frame().join(both, on="word", how="left", nulls_equal=True, maintain_order="left")
        )
        return joined["row"].to_numpy()

    def _bag(self, name: str, texts: pl.Series) -> np.ndarray:
        """Each different text once, since there are few."""
        feature = self.layout["bags"][name]
        words = texts.unique()
        table = np.zeros((len(words), feature["most"]), np.int32)
        for number, word in enumerate(words):
            rows = [self.row(name, value) for value in self.values_of(name, word)] or [self.row(name, None)]
            table[number, : len(rows)] = rows
        places = pl.DataFrame({"word": words, "place": np.arange(len(words))})
        joined = (
            texts.rename("word").to_frame().join(places, on="word", how="left", nulls_equal=True, maintain_order="left")
        )
        return table[joined["place"].to_numpy()]


def require_features(events: pl.DataFrame, features: Mapping[str, Feature], key: str) -> None:
    """Refuse features that checked rows do not have, or that are numeric and hold no numbers.

    Args:
        events: ``user``, ``item``, ``row``, ``feature.<name>`` text.
        features: By name.
        key: That names them in params.yaml.

    Raises:
        DataError: Names the feature, and the nearest that is there or the row.
    """
    there = [name.removeprefix(FEATURE) for name in events.columns if name.startswith(FEATURE)] + [USER, ITEM]
    for name, feature in features.items():
        if name not in there:
            raise DataError(
                f"the source has no feature {name!r}, which {key} names; {nearest(name, there)}",
                f"Correct {key}, or add the column to source.features in params.yaml.",
            )
        if not isinstance(feature, NumericFeature):
            continue
        texts = events[name if name in (USER, ITEM) else FEATURE + name]
        wrong = (texts.cast(pl.Float64, strict=False).is_null() & texts.is_not_null()).arg_true()
        if len(wrong):
            first = int(wrong[0])
            raise DataError(
                f"the feature {name!r} is numeric, and {len(wrong):,} of {len(texts):,} rows hold no number in it, "
                f"e.g. row {int(events['row'][first]) + 1:,} of the source: {texts[first]!r}",
                f"Mend the column, or make it a vocabulary or hashed feature in {key}.",
            )


def learned_features(
    columns: Mapping[str, pl.Series], features: Mapping[str, Feature]
) -> tuple[dict[str, Any], pl.DataFrame]:
    """The layout and the vocabularies.

    Args:
        columns: Text ``(N,)`` of each feature, of training rows alone.
        features: In the order of their rows.

    Returns:
        ``single``, ``bags`` and ``numbers`` by name in the order of the columns, ``rows`` of the table and ``columns``
        C; and ``feature``, ``value``, ``row``.

    Raises:
        DataError: A number is none.
    """
    layout: dict[str, Any] = {"single": {}, "bags": {}, "numbers": {}}
    words: list[pl.DataFrame] = []
    first = 1
    for name, feature in features.items():
        texts = columns[name]
        if isinstance(feature, NumericFeature):
            numbers = _as_numbers(name, texts)
            there = numbers[np.isfinite(numbers)]
            scale = float(there.std()) if len(there) else 0.0
            mean, column = float(there.mean()) if len(there) else 0.0, len(layout["numbers"])
            layout["numbers"][name] = {"column": column, "mean": mean, "scale": scale or 1.0}
            continue
        described: dict[str, Any] = {"first": first}
        if feature.separator:
            described |= {"separator": feature.separator, "most": feature.most}
        if isinstance(feature, HashedFeature):
            described["buckets"] = feature.buckets
            first += 1 + feature.buckets
        else:
            known = _vocabulary(name, texts, feature)
            rows = np.arange(first + 2, first + 2 + len(known), dtype=np.int32)
            words.append(pl.DataFrame({"feature": [name] * len(known), "value": known, "row": rows}))
            first += 2 + len(known)
        layout["bags" if feature.separator else "single"][name] = described
    empty = pl.DataFrame(schema={"feature": pl.String, "value": pl.String, "row": pl.Int32})
    columns_of_bags = sum(bag["most"] for bag in layout["bags"].values())
    layout |= {"rows": first, "columns": len(layout["single"]) + columns_of_bags}
    return layout, pl.concat([empty, *words])


def bucket(name: str, value: str, buckets: int) -> int:
    """The bucket of a value, in every process and on every machine the same."""
    return int.from_bytes(hashlib.blake2b(f"{name}\0{value}".encode(), digest_size=8).digest(), "little") % buckets


def _vocabulary(name: str, texts: pl.Series, feature: VocabularyFeature) -> pl.Series:
    given = texts.drop_nulls()
    if feature.separator:
        given = given.str.split(feature.separator).list.unique().explode().str.strip_chars().drop_nulls()
        given = given.filter(given != "")
    counts = given.rename("value").value_counts()
    return vocabulary(counts.filter(pl.col("count") >= feature.min_count)["value"].cast(pl.String))


def _as_numbers(name: str, texts: pl.Series) -> np.ndarray:
    """``(N,)`` float64."""
    numbers = texts.cast(pl.Float64, strict=False)
    wrong = (numbers.is_null() & texts.is_not_null()).arg_true()
    if len(wrong):
        raise DataError(
            f"the feature {name!r} is numeric, and {len(wrong):,} of {len(texts):,} rows hold no number in it, "
            f"e.g. {texts[int(wrong[0])]!r}",
            "Mend the column, or make it a vocabulary or hashed feature in prepare.features.",
        )
    found: np.ndarray = numbers.fill_null(float("nan")).to_numpy().copy()
    found[~np.isfinite(found)] = np.nan
    return found
