"""What rows say of items becomes rows of a table, and a part of the data set and of its digest."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from components.data.dataset import read_dataset
from components.data.ingesting import ingest
from components.data.item_features import ItemFeatures
from components.data.preparing import Prepared, prepare, summary, write_dataset
from components.data.sources import open_source
from components.errors import DataError, IntegrityError, SettingsError
from components.settings.base import validated
from components.settings.prepare import PrepareSettings
from components.settings.source import TableSource

TOPIC = {"topic": {"kind": "vocabulary", "min_count": 1}}
TAGS = {"tags": {"kind": "vocabulary", "min_count": 1, "separator": "|", "most": 2}}
# What is said of the items "1" to "4": the newest row is the last one.
SAID = {
    "topic": ["a", "b", None, "a"],
    "tags": ["x|y", "x", None, "z|y|x"],
    "price": ["10", "20", None, "30"],
}
ROWS = pl.DataFrame(
    [(user, item, time) for user in "123" for time, item in enumerate("12341234")],
    schema=["user", "item", "timestamp"],
    orient="row",
).with_row_index("row")


def events(said: Mapping[str, list[str | None]] = SAID) -> pl.DataFrame:
    rows = ROWS.with_columns(pl.col("row", "timestamp").cast(pl.Int64))
    return rows.with_columns(
        pl.Series(f"feature.{name}", [values[int(item) - 1] for item in ROWS["item"]]) for name, values in said.items()
    )


def made(features: Mapping[str, Any], log: pl.DataFrame | None = None) -> Prepared:
    settings = validated(PrepareSettings, {"item_features": features}, "prepare")
    titles = pl.DataFrame({"id": ["1"], "title": ["One"]})
    return prepare(events() if log is None else log, titles, settings, "source")


def read_back(folder: Path, prepared: Prepared) -> ItemFeatures:
    write_dataset(folder / "dataset", prepared)
    found = read_dataset(folder / "dataset").item_features
    assert found is not None
    return found


def meaning(prepared: Prepared, item: int) -> dict[tuple[str, str, str | None], float]:
    """How much counts of what, for an item."""
    assert prepared.features is not None
    rows = {row: tuple(rest) for row, *rest in prepared.features.iter_rows()}
    given = prepared.items.row(item, named=True)
    pairs = zip(given["feature_rows"], given["feature_shares"], strict=True)
    return {rows[row]: share for row, share in pairs if row}  # type: ignore[misc]


def test_a_category_counts_one_and_values_of_a_list_share_it() -> None:
    prepared = made(TOPIC | TAGS)
    assert meaning(prepared, 0) == {
        ("topic", "value", "a"): 1.0,
        ("tags", "value", "x"): 0.5,
        ("tags", "value", "y"): 0.5,
    }
    # Of three values two are read.
    assert meaning(prepared, 3) == {
        ("topic", "value", "a"): 1.0,
        ("tags", "value", "z"): 0.5,
        ("tags", "value", "y"): 0.5,
    }


def test_what_is_missing_has_a_row_of_its_own_and_so_has_what_is_rare() -> None:
    price = {"price": {"kind": "numeric"}}
    prepared = made({"topic": {"kind": "vocabulary"}} | TAGS | price)
    missing = dict.fromkeys([(name, "missing", None) for name in SAID], 1.0)
    assert meaning(prepared, 2) == missing
    assert ("topic", "other", None) in meaning(prepared, 1), "one item is of it, and min_count is 2"


def test_a_number_counts_as_much_as_it_is() -> None:
    prepared = made({"price": {"kind": "numeric"}})
    shares = [meaning(prepared, item)["price", "number", None] for item in (0, 1, 3)]
    assert shares == pytest.approx([-1.2247449, 0, 1.2247449])


def test_a_hash_needs_no_vocabulary() -> None:
    prepared = made({"topic": {"kind": "hashed", "buckets": 3}})
    ((feature, means, _),) = meaning(prepared, 0)
    assert (feature, means) == ("topic", "bucket") and meaning(prepared, 0) == meaning(prepared, 3)
    assert prepared.features is not None and len(prepared.features) == 5


def test_of_rows_that_differ_the_newest_that_says_something_counts() -> None:
    newest = ROWS.group_by("item").agg(pl.col("row").max())["row"].implode()
    log = events().with_columns(
        pl.when(pl.col("row").is_in(newest) & (pl.col("item") == "1"))
        .then(pl.lit("b"))
        .when(pl.col("row").is_in(newest))
        .then(None)
        .otherwise("feature.topic")
        .alias("feature.topic")
    )
    prepared = made(TOPIC, log)
    said = [next(iter(meaning(prepared, item))) for item in range(4)]
    assert said == [
        *(("topic", "value", "b"), ("topic", "value", "b"), ("topic", "missing", None)),
        ("topic", "value", "a"),
    ]
    assert "1 items have more than one 'topic': the newest counts" in summary(prepared.record)


def test_the_features_are_read_back_and_are_in_the_digest(tmp_path: Path) -> None:
    prepared = made(TOPIC | TAGS)
    found = read_back(tmp_path, prepared)
    assert found.rows.tolist() == prepared.items["feature_rows"].to_list()
    assert found.shares.tolist() == prepared.items["feature_shares"].to_list()
    renamed = made(TOPIC, events({"topic": ["c", "b", None, "c"]})).record["digest"]
    assert len({prepared.record["digest"], made(TOPIC).record["digest"], renamed, made({}).record["digest"]}) == 4


def test_a_row_of_the_table_has_its_key_in_every_data_set(tmp_path: Path) -> None:
    def keys(name: str, topics: list[str | None]) -> dict[tuple[Any, ...], int]:
        prepared = made(TOPIC, events({"topic": topics}))
        assert prepared.features is not None
        found = read_back(tmp_path / name, prepared).keys
        return dict(zip(prepared.features.select("feature", "means", "value").rows(), found.tolist(), strict=True))

    one, other = keys("one", ["a", "b", "c", "a"]), keys("other", ["0", "c", "b", "d"])
    shared = one.keys() & other.keys()
    assert len(shared) == 5 and all(one[row] == other[row] for row in shared)
    assert len(set(one.values()) | set(other.values())) == len(one) + len(other) - len(shared)


def test_without_features_nothing_is_other_than_before(tmp_path: Path) -> None:
    plain = ROWS.with_columns(pl.col("row", "timestamp").cast(pl.Int64))
    assert made({}).record == made({}, plain).record
    assert "item_features" not in made({}).record and "item_features" not in made({}).record["settings"]
    write_dataset(tmp_path / "dataset", made({}))
    assert not (tmp_path / "dataset" / "features.parquet").exists()
    assert read_dataset(tmp_path / "dataset").item_features is None


@pytest.mark.parametrize("file", ["items", "features"])
def test_features_that_were_tampered_with_are_refused(tmp_path: Path, file: str) -> None:
    read_back(tmp_path, made(TOPIC))
    path = tmp_path / "dataset" / f"{file}.parquet"
    column = {"items": "feature_rows", "features": "value"}[file]
    pl.read_parquet(path).with_columns(pl.col(column).reverse()).write_parquet(path)
    with pytest.raises(IntegrityError, match="not the data set"):
        read_dataset(tmp_path / "dataset")


@pytest.mark.parametrize(
    ("features", "error", "told"),
    [
        ({"topics": {"kind": "vocabulary"}}, DataError, r"no feature 'topics', which prepare\.item_features.*'topic'"),
        ({"topic": {"kind": "numeric"}}, DataError, r"18 of 24 rows hold no number in it, e\.g\. row 1 of"),
        ({"topic": {"kind": "vocabulry"}}, SettingsError, "'vocabulary', 'hashed', 'numeric'"),
        ({"item": {"kind": "vocabulary"}}, SettingsError, "'item': that is no feature of an item"),
    ],
)
def test_what_cannot_be_is_one_clear_error(features: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        made(features)


def test_a_table_of_ones_own_brings_the_columns_that_are_named(tmp_path: Path) -> None:
    log = events().rename({"feature.topic": "topic"}).select("user", "item", "timestamp", "topic", "feature.price")
    log.write_csv(tmp_path / "log.csv")
    found = {}
    for features in ((), ("topic",)):
        source = TableSource(kind="table", path="log.csv", features=features)
        found[features] = ingest(open_source(source, tmp_path), source, datetime.now(UTC))
    assert found[()].events.columns == ["user", "item", "timestamp", "row"]
    with_topic = found["topic",]
    assert with_topic.events.columns == ["user", "item", "timestamp", "row", "feature.topic"]
    assert with_topic.events["feature.topic"].to_list() == [
        SAID["topic"][int(i) - 1] for i in with_topic.events["item"]
    ]
    assert with_topic.record["digest"] != found[()].record["digest"]
    settings = validated(PrepareSettings, {"item_features": TOPIC}, "prepare")
    prepared = prepare(with_topic.events, with_topic.items, settings, "source")
    np.testing.assert_array_equal(
        prepared.items["feature_rows"].to_numpy(), made(TOPIC).items["feature_rows"].to_numpy()
    )
