"""Bad rows are put aside one by one, each with its reason and its place."""

from typing import Any

import polars as pl
import pytest

from components.data.rows import RawRows
from components.data.validation import Validation, counts_by_reason, require_acceptable
from components.errors import DataError

NOW = 1_800_000_000_000_000
GOOD = ("u", "i", "1700000000")


def validated(*batches: list[tuple[Any, Any, Any]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    validation = Validation(latest=NOW)
    for number, rows in enumerate(batches):
        table = pl.DataFrame(rows, schema=dict.fromkeys(("user", "item", "timestamp"), pl.String), orient="row")
        validation.add(RawRows(f"{number}.csv", 1, table))
    return validation.finish()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ((None, "i", "1700000000"), "null user"),
        (("  ", "i", "1700000000"), "null user"),
        (("u", None, "1700000000"), "null item"),
        (("u", "i", None), "null time"),
        (("u", "i", "soon"), "time does not parse"),
        (("u", "i", "-1700000000"), "negative time"),
        (("u", "i", "1900000000"), "future time"),
        ((None, None, "soon"), "null user"),
    ],
)
def test_a_bad_row_is_rejected_for_its_reason_and_named(row: tuple[Any, Any, Any], reason: str) -> None:
    events, rejected = validated([GOOD, row, ("v", "i", "1700000001")])
    assert events["row"].to_list() == [0, 2]
    assert rejected.rows() == [("0.csv", 2, *row, reason)]


def test_an_id_that_is_a_fraction_is_of_the_wrong_type() -> None:
    validation = Validation(latest=NOW)
    validation.add(RawRows("f", 5, pl.DataFrame({"user": [1.0, 1.5], "item": [1, 1], "timestamp": [1, 1]})))
    events, rejected = validation.finish()
    assert events["user"].to_list() == ["1"]
    assert rejected.rows() == [("f", 6, "1.5", "1", "1", "user of wrong type")]


def test_the_first_of_equal_events_is_kept_within_and_across_batches() -> None:
    other = ("v", "i", "1700000000")
    events, rejected = validated([GOOD, GOOD, other], [("w", "i", "1"), GOOD])
    assert events["row"].to_list() == [0, 2, 3]
    assert rejected.select("file", "row", "reason").rows() == [
        ("0.csv", 2, "duplicate event"),
        ("1.csv", 2, "duplicate event"),
    ]
    assert rejected["timestamp"][0] == "2023-11-14T22:13:20Z"


def test_the_same_item_at_another_time_is_no_duplicate() -> None:
    events, rejected = validated([GOOD, ("u", "i", "1700000001"), ("u", "j", "1700000000")])
    assert len(events) == 3
    assert rejected.is_empty()


def test_equal_times_in_different_forms_are_duplicates() -> None:
    _, rejected = validated([GOOD, ("u", "i", "2023-11-14T22:13:20Z")])
    assert counts_by_reason(rejected) == {"duplicate event": 1}


def test_batches_change_nothing() -> None:
    rows = [GOOD, (None, "i", "5"), ("v", "i", "7"), GOOD, ("w", "i", "x")]
    whole = validated(rows)
    parts = validated(rows[:2], rows[2:3], rows[3:])
    assert whole[0].equals(parts[0])
    assert whole[1]["reason"].to_list() == parts[1]["reason"].to_list()


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("user", [["a"]], ["f.parquet", "'user'", "List(String)", "ids are texts"]),
        ("item", [True], ["'item'", "Boolean"]),
        ("timestamp", [False], ["'timestamp'", "Boolean", "datetimes"]),
    ],
)
def test_a_column_of_a_type_that_cannot_serve_is_refused_whole(name: str, values: list, words: list[str]) -> None:
    columns = {"user": ["a"], "item": ["b"], "timestamp": [1], name: values}
    with pytest.raises(DataError) as caught:
        Validation(latest=NOW).add(RawRows("f.parquet", 1, pl.DataFrame(columns, strict=False)))
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_column_of_nulls_only_is_rejected_row_by_row() -> None:
    validation = Validation(latest=NOW)
    validation.add(RawRows("f", 1, pl.DataFrame({"user": [None, None], "item": [1, 2], "timestamp": [1, 2]})))
    assert counts_by_reason(validation.finish()[1]) == {"null user": 2}


def test_no_batch_gives_empty_tables_of_the_right_form() -> None:
    events, rejected = validated()
    assert events.columns == ["user", "item", "timestamp", "row"]
    assert rejected.columns == ["file", "row", "user", "item", "timestamp", "reason"]
    assert events.is_empty() and rejected.is_empty()


def test_too_many_bad_rows_are_refused_with_counts_and_an_example_of_each_reason() -> None:
    _, rejected = validated([GOOD, (None, "i", "5"), ("v", "i", "soon"), ("w", "i", "soon")])
    require_acceptable(rejected, rows=4, most=0.75)
    with pytest.raises(DataError) as caught:
        require_acceptable(rejected, rows=4, most=0.5)
    message = str(caught.value)
    assert "3 of 4 rows (75.00%) are bad, 50.00% are accepted" in message
    assert "1 x null user, e.g. 0.csv, row 2" in message
    assert "2 x time does not parse, e.g. 0.csv, row 3: user 'v', item 'i', timestamp 'soon'" in message
    assert "max_rejected_share" in message
