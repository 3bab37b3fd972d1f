"""The prepared data set holds every interaction in a fixed order, with stable prediction points."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.dataset import PreparedDataset, read_dataset
from components.data.preparing import Prepared, prepare, summary, write_dataset
from components.errors import DataError, IntegrityError
from components.settings.prepare import PrepareSettings

SETTINGS = PrepareSettings(min_user_events=3)
# Few items and few times, so that floors bite and ties are common.
LOGS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(0, 4)), min_size=10, max_size=80)


def log(rows: list[tuple[int, int, int]]) -> pl.DataFrame:
    table = pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row").with_row_index("row")
    return table.cast({"user": pl.String, "item": pl.String, "timestamp": pl.Int64, "row": pl.Int64})


def made(events: pl.DataFrame, settings: PrepareSettings = SETTINGS) -> Prepared:
    ids = events["item"].unique()
    return prepare(events, pl.DataFrame({"id": ids, "title": "Title " + ids}), settings, "source")


def whole(user: int, items: list[int], times: list[int]) -> list[tuple[int, int, int]]:
    return [(user, item, time) for item, time in zip(items, times, strict=True)]


EXAMPLE = log(whole(10, [1, 2, 3, 4], [4, 4, 2, 9]) + whole(9, [3, 2, 1], [1, 2, 3]) + whole(7, [1, 5], [1, 2]))


def test_histories_are_in_the_order_of_time_and_ties_in_that_of_the_source() -> None:
    prepared = made(EXAMPLE)
    assert prepared.users["id"].to_list() == ["9", "10"]
    assert prepared.items["id"].to_list() == ["1", "2", "3", "4"]
    # User 10: item 3 at time 2, then 1 and 2 which share time 4, then 4.
    assert prepared.events["item"].to_list() == [2, 1, 0, 2, 0, 1, 3]
    assert prepared.events["position"].to_list() == [0, 1, 2, 0, 1, 2, 3]
    assert prepared.events["split"].to_list() == [0, 1, 2, 0, 0, 1, 2]
    assert prepared.events["point"].to_list() == [-1, -1, -1, -1, 0, -1, -1]


def test_the_record_counts_what_is_there() -> None:
    record = made(EXAMPLE).record
    assert (record["users"], record["items"], record["events"], record["points"]) == (2, 4, 7, 1)
    assert record["events_per_split"] == {"train": 3, "validation": 2, "test": 2}
    assert record["dropped_by_floors"] == 2
    assert record["median_history"] == 3.5
    assert record["density"] == 7 / 8
    # Items 2 and 4 (user 10) and 2 and 1 (user 9) are targets; of them only item 1 is ever trained on.
    assert record["cold_targets"] == {"validation": 2, "test": 1}
    assert record["source_digest"] == "source"
    assert record["settings"]["min_user_events"] == 3
    assert any("2 users, 4 items, 7 events" in line for line in summary(record))


def test_popularity_counts_training_events_and_titles_are_kept() -> None:
    items = made(EXAMPLE).items
    assert items["train_events"].to_list() == [1, 0, 2, 0]
    assert items["title"].to_list() == ["Title 1", "Title 2", "Title 3", "Title 4"]


@given(LOGS)
def test_no_interaction_above_the_floors_is_dropped_and_points_are_counted_through(
    rows: list[tuple[int, int, int]],
) -> None:
    events = log(rows)
    try:
        prepared = made(events)
    except DataError:
        return
    users, items = prepared.users["id"], prepared.items["id"]
    there = sorted(
        zip(
            users.gather(prepared.events["user"]),
            items.gather(prepared.events["item"]),
            prepared.events["timestamp"],
            strict=True,
        )
    )
    enough = events.filter(pl.len().over("user") >= 3)
    assert there == sorted(enough.select("user", "item", "timestamp").rows())
    points = prepared.events["point"].to_numpy()
    assert points[points >= 0].tolist() == list(range(prepared.record["points"]))
    targets = (prepared.events["split"] == 0) & (prepared.events["position"] > 0)
    assert ((points >= 0) == targets.to_numpy()).all()


@given(LOGS, st.randoms())
def test_the_order_in_which_rows_arrive_changes_nothing_once_ties_are_numbered(
    rows: list[tuple[int, int, int]], random
) -> None:
    events = log(rows)
    try:
        prepared = made(events)
    except DataError:
        return
    shuffled = events[random.sample(range(len(events)), len(events))]
    assert made(shuffled).record == prepared.record


@pytest.mark.parametrize("column", ["item", "timestamp"])
def test_the_digest_changes_with_the_content(column: str) -> None:
    last = EXAMPLE["row"] == 3
    changed = EXAMPLE.with_columns(
        pl.when(last).then(pl.lit("6") if column == "item" else pl.lit(10)).otherwise(pl.col(column)).alias(column)
    )
    assert made(changed).record["digest"] != made(EXAMPLE).record["digest"]


def test_the_digest_changes_with_the_order_of_a_tie() -> None:
    swapped = EXAMPLE.with_columns(row=pl.Series([1, 0, *range(2, 9)]))
    assert made(swapped).record["digest"] != made(EXAMPLE).record["digest"]


def test_titles_are_no_part_of_the_digest() -> None:
    untitled = prepare(EXAMPLE, pl.DataFrame({"id": ["1"], "title": [None]}), SETTINGS, "source")
    assert untitled.record["digest"] == made(EXAMPLE).record["digest"]


def test_a_temporal_split_counts_targets_that_have_no_history() -> None:
    old = [row for user in range(8) for row in whole(user, [1, 2, 3], [1, 2, 3])]
    new = whole(8, [1, 2, 3], [50, 60, 70])
    settings = PrepareSettings(min_user_events=3, split="temporal", validation_share=0.06, test_share=0.06)
    prepared = made(log(old + new), settings)
    assert prepared.record["targets_without_history"] == {"validation": 1, "test": 0}
    assert prepared.record["events_per_split"] == {"train": 24, "validation": 1, "test": 2}


def test_floors_that_leave_too_little_are_refused_with_the_counts() -> None:
    with pytest.raises(DataError, match=r"users below 9 events and items below 1 leaves 0 users and 0 items of 9"):
        made(EXAMPLE, PrepareSettings(min_user_events=9))


def test_histories_too_short_to_learn_from_are_refused() -> None:
    with pytest.raises(DataError, match="none of the 6 events can be learned from"):
        made(log(whole(1, [1, 2, 3], [1, 2, 3]) + whole(2, [1, 2, 3], [1, 2, 3])))


def test_a_written_data_set_is_read_back_whole(tmp_path: Path) -> None:
    prepared = made(EXAMPLE)
    write_dataset(tmp_path / "dataset", prepared)
    dataset = read_dataset(tmp_path / "dataset")
    for name in ("item", "timestamp", "split", "point", "user"):
        np.testing.assert_array_equal(getattr(dataset, name), prepared.events[name].to_numpy())
    assert dataset.offsets.tolist() == [0, 3, 7]
    assert dataset.record == prepared.record
    assert dataset.train_counts.tolist() == prepared.items["train_events"].to_list()


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_dataset(tmp_path / name, made(EXAMPLE))
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_the_shared_data_set_is_large_enough_to_learn_from(prepared: PreparedDataset) -> None:
    assert prepared.users == 60
    assert prepared.points == prepared.record["events_per_split"]["train"] - prepared.users
    assert len(prepared.rows("test")) == prepared.users


@pytest.mark.parametrize("change", ["swap", "cut", "missing", "vocabulary"])
def test_a_data_set_that_was_tampered_with_is_refused(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "dataset"
    write_dataset(folder, made(EXAMPLE))
    train = folder / "train.parquet"
    if change == "swap":
        pl.read_parquet(train).with_columns(pl.col("item").reverse()).write_parquet(train)
    elif change == "cut":
        train.write_bytes(train.read_bytes()[:-20])
    elif change == "missing":
        train.unlink()
    else:
        items = folder / "items.parquet"
        pl.read_parquet(items).with_columns(id=pl.col("id").reverse()).write_parquet(items)
    with pytest.raises(DataError if change == "missing" else IntegrityError):
        read_dataset(folder)
