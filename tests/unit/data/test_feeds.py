"""A feed: which rows are one impression, which impressions are of interest, what they weigh, what is put aside."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from components.data.dataset import read_dataset
from components.data.feeds import NEGATIVE, NO_NUMBER, NO_TYPE, UNKNOWN_TYPE
from components.data.ingesting import Ingested, ingest
from components.data.preparing import prepare, write_dataset
from components.data.sources import open_source
from components.data.synthetic_feed import draw_feed
from components.errors import DataError, IntegrityError, SettingsError
from components.settings.base import validated
from components.settings.feed_source import FeedTableSource, SyntheticFeedSource
from components.settings.prepare import PrepareSettings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCHEMA = dict.fromkeys(("user", "item", "timestamp", "event", "dwell", "topic"), pl.String)
DRAWN: dict[str, Any] = {"kind": "synthetic-feed", "path": "-", "users": 40, "items": 48, "impressions_per_user": 20}
INTEREST: dict[str, Any] = {
    "weights": {"view": 0, "like": 1, "share": 2, "hide": -3},
    "dwell": 0.1,
    "dwell_most": 15,
    "within": "PT10M",
    "least": 1,
    "most": 2.5,
}
Row = tuple[str | None, ...]


def feed_of(path: Path, rows: list[Row], *, suffix: str = ".csv", bad: float = 0.0, **interest: Any) -> Ingested:
    others = [("v", "z", "2000", "like", None, "t"), ("w", "z", "2000", "view", "1", "t")]
    table = pl.DataFrame([*rows, *others], schema=SCHEMA, orient="row")
    if suffix == ".parquet":
        table.with_columns(pl.col("dwell").cast(pl.Float64)).write_parquet(path / "log.parquet")
    else:
        table.write_csv(path / "log.csv")
    section = {
        "kind": "feed-table",
        "path": f"log{suffix}",
        "columns": {"dwell": "dwell"},
        "features": ["topic"],
        "interest": INTEREST | interest,
        "max_rejected_share": bad,
    }
    settings = validated(FeedTableSource, section, "scenarios.mine.source")
    return ingest(open_source(settings, path), settings, NOW)


def row(item: str, time: int, event: str, dwell: str | None) -> Row:
    return "u", item, str(time), event, dwell, "t"


def of_user(found: Ingested, user: str = "u") -> list[tuple[Any, ...]]:
    own = found.events.filter(pl.col("user") == user)
    return own.select("item", pl.col("timestamp") // 1_000_000, "label", pl.col("weight").round(4)).rows()


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row("a", 1000, "view", "5")], [("a", 1000, 0, 1.0)]),
        ([row("a", 1000, "view", "10")], [("a", 1000, 1, 1.0)]),
        ([row("a", 1000, "view", "9999")], [("a", 1000, 1, 1.5)]),
        ([row("a", 1000, "view", "2"), row("a", 1003, "like", None)], [("a", 1000, 1, 1.2)]),
        ([row("a", 1000, "like", None), row("a", 1000, "view", "1")], [("a", 1000, 1, 1.1)]),
        ([row("a", 1000, "share", None), row("a", 1001, "like", None)], [("a", 1000, 1, 2.5)]),
        ([row("a", 1000, "like", None), row("a", 1100, "hide", None)], [("a", 1000, 0, 1.0)]),
        ([row("a", 1000, "view", "6"), row("b", 1001, "view", "6")], [("a", 1000, 0, 1), ("b", 1001, 0, 1)]),
        ([row("a", 1000, "view", "6"), row("a", 1601, "view", "6")], [("a", 1000, 0, 1), ("a", 1601, 0, 1)]),
        ([row("a", 1000, "view", "6"), row("a", 1600, "view", "6")], [("a", 1000, 1, 1.2)]),
    ],
    ids=["short", "long", "capped", "like after", "same time", "most", "hidden", "two items", "later again", "same"],
)
def test_rows_of_one_impression_add_up(tmp_path: Path, suffix: str, rows: list[Row], expected: list[Any]) -> None:
    found = feed_of(tmp_path, rows, suffix=suffix)
    assert of_user(found) == [pytest.approx(one) for one in expected]
    assert found.record["of_interest"] == found.events["label"].sum() and not len(found.rejected)
    # Whoever sends the rows in another order gets the same impressions.
    assert sorted(of_user(feed_of(tmp_path, rows[::-1], suffix=suffix))) == sorted(of_user(found))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (("u", "a", "1000", "purchase", "1", "t"), UNKNOWN_TYPE),
        (("u", "a", "1000", None, "1", "t"), NO_TYPE),
        (("u", "a", "1000", " ", "1", "t"), NO_TYPE),
        (("u", "a", "1000", "view", "-0.5", "t"), NEGATIVE),
        (("u", "a", "1000", "view", "long", "t"), NO_NUMBER),
        (("u", "a", "1000", "view", "inf", "t"), NO_NUMBER),
        (("u", None, "1000", "view", "1", "t"), "null item"),
    ],
)
def test_a_row_that_cannot_be_is_put_aside_with_its_place_and_the_reason(
    tmp_path: Path, wrong: Row, reason: str
) -> None:
    before = ("u", "a", "900", "like", "1", "t")
    found = feed_of(tmp_path, [before, wrong], bad=0.5)
    assert found.rejected.select("file", "row", "reason").rows() == [("log.csv", 2, reason)]
    assert of_user(found) == [("a", 900, 1, pytest.approx(1.1))]
    with pytest.raises(DataError, match=reason):
        feed_of(tmp_path, [before, wrong])


def test_the_same_row_twice_counts_once(tmp_path: Path) -> None:
    found = feed_of(tmp_path, [row("a", 1000, "view", "6")] * 2, bad=0.5)
    assert found.rejected["reason"].to_list() == ["duplicate event"]
    assert of_user(found) == [("a", 1000, 0, 1.0)]


def test_an_impression_has_the_feature_that_any_of_its_rows_knows(tmp_path: Path) -> None:
    rows = [("u", "a", "1000", "view", "6", None), ("u", "a", "1001", "like", None, "news")]
    found = feed_of(tmp_path, [*rows, ("u", "b", "1000", "like", None, None)])
    known = found.events.filter(pl.col("user") == "u").select("item", "feature.topic").rows()
    assert sorted(known, key=str) == [("a", "news"), ("b", None)]


@pytest.mark.parametrize(
    ("interest", "told"),
    [
        ({"weights": {"hide": -1}, "dwell": 0}, "nothing adds to the interest"),
        ({"least": 3, "most": 2}, "most (2) is below least (3)"),
        ({"within": "-PT1M"}, "must be a span of time"),
    ],
)
def test_settings_under_which_nothing_is_of_interest_are_refused(interest: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError) as error:
        validated(FeedTableSource, {"kind": "feed-table", "path": "x", "interest": interest}, "scenarios.mine.source")
    assert told in str(error.value)


def test_the_generator_gives_the_same_feed_for_the_same_seed() -> None:
    first, again = (draw_feed(SyntheticFeedSource.model_validate(DRAWN)) for _ in range(2))
    assert first.equals(again)
    assert not first.equals(draw_feed(SyntheticFeedSource.model_validate(DRAWN | {"seed": 1})))
    views = first.filter(pl.col("event") == "view")
    assert len(views) == 40 * 20 and views.select("user", "item").is_duplicated().sum() == 0
    assert (views["dwell"] > 0).all() and set(first["event"]) == {"view", "like", "share", "hide"}
    assert first["feature.topic"].null_count() > 0


def test_weights_go_into_the_data_set_and_its_digest(tmp_path: Path) -> None:
    settings = SyntheticFeedSource.model_validate(DRAWN)
    found = ingest(open_source(settings, Path()), settings, NOW)
    events = found.events.filter(pl.col("label") == 1)
    floors = PrepareSettings(min_user_events=3)
    write_dataset(tmp_path / "dataset", prepare(events, found.items, floors, found.record["digest"]))
    dataset = read_dataset(tmp_path / "dataset")
    assert dataset.weight is not None and len(np.unique(dataset.weight)) > 10
    assert dataset.weight.min() >= 1 and dataset.weight.max() == pytest.approx(settings.interest.most)
    train = pl.read_parquet(tmp_path / "dataset" / "train.parquet")
    train.with_columns(weight=pl.lit(1.0, pl.Float32)).write_parquet(tmp_path / "dataset" / "train.parquet")
    with pytest.raises(IntegrityError, match="is not the data set that its record describes"):
        read_dataset(tmp_path / "dataset")
