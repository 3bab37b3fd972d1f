"""A source becomes checked events, described by a record that depends on their content only."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from components.data import tables
from components.data.events import events_digest, read_ingested
from components.data.ingesting import Ingested, ingest, summary
from components.data.sources import open_source
from components.errors import DataError, IntegrityError
from components.settings.source import TableSource

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = pl.DataFrame(
    {
        "user": ["b", "a", "a", "b", "a", "c"],
        "item": ["10", "9", "10", "9", "x", "9"],
        "timestamp": [5, 3, 3, 9, 12, 11],
    }
)


def ingested(root: Path, rows: pl.DataFrame = ROWS, **settings: object) -> Ingested:
    rows.write_csv(root / "e.csv")
    source = TableSource(kind="table", path="e.csv", **settings)  # type: ignore[arg-type]
    return ingest(open_source(source, root), source, NOW)


def test_events_keep_the_order_of_the_source_and_times_are_microseconds(tmp_path: Path) -> None:
    events = ingested(tmp_path).events
    assert events.schema == {"user": pl.String, "item": pl.String, "timestamp": pl.Int64, "row": pl.Int64}
    assert events["user"].to_list() == ROWS["user"].to_list()
    assert events["timestamp"].to_list() == (ROWS["timestamp"] * 10**6).to_list()
    assert events["row"].to_list() == list(range(6))


def test_items_are_those_of_the_events_in_the_order_of_the_vocabulary(tmp_path: Path) -> None:
    assert ingested(tmp_path).items.rows() == [("9", None), ("10", None), ("x", None)]


def test_titles_are_joined_where_they_are_known(tmp_path: Path) -> None:
    titled = ROWS.with_columns(name=pl.Series([None, "Nine", "Ten", None, None, None]))
    found = ingested(tmp_path, titled, columns={"title": "name"})
    assert found.items.rows() == [("9", "Nine"), ("10", "Ten"), ("x", None)]


def test_the_record_describes_what_was_found(tmp_path: Path) -> None:
    bad = pl.concat([ROWS, pl.DataFrame({"user": [None], "item": ["9"], "timestamp": [1]})])
    record = ingested(tmp_path, bad, max_rejected_share=0.5).record
    assert (record["rows"], record["events"], record["users"], record["items"]) == (7, 6, 3, 3)
    assert record["rejected"] == {"null user": 1}
    assert record["first_event"] == "1970-01-01T00:00:03Z"
    assert record["last_event"] == "1970-01-01T00:00:12Z"
    assert [file["name"] for file in record["files"]] == ["e.csv"]
    assert any("1 x null user" in line for line in summary(record))


def test_ingesting_again_gives_the_same_record(tmp_path: Path) -> None:
    assert ingested(tmp_path).record == ingested(tmp_path).record


def test_the_digest_depends_on_neither_files_nor_batches_nor_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ingested(tmp_path)
    monkeypatch.setattr(tables, "BATCH_ROWS", 2)
    assert ingested(tmp_path).record["digest"] == whole.record["digest"]
    folder = tmp_path / "parts"
    folder.mkdir()
    ROWS[:2].write_csv(folder / "0.csv")
    ROWS[2:].with_columns(pl.from_epoch("timestamp")).write_parquet(folder / "1.parquet")
    source = TableSource(kind="table", path="parts")
    parts = ingest(open_source(source, tmp_path), source, NOW)
    assert parts.record["digest"] == whole.record["digest"]
    assert parts.events.equals(whole.events)


@pytest.mark.parametrize(
    "other",
    [
        ROWS.with_columns(user=pl.Series(["b", "a", "a", "b", "a", "d"])),
        ROWS.with_columns(item=pl.Series(["10", "9", "10", "9", "10", "9"])),
        ROWS.with_columns(timestamp=pl.Series([5, 3, 3, 9, 12, 10])),
        ROWS[:5],
        ROWS[[0, 2, 1, 3, 4, 5]],
    ],
    ids=["user", "item", "time", "fewer", "order of a tie"],
)
def test_the_digest_changes_with_the_content(tmp_path: Path, other: pl.DataFrame) -> None:
    assert ingested(tmp_path, other).record["digest"] != ingested(tmp_path).record["digest"]


def test_rejected_rows_between_the_good_ones_leave_the_digest_alone(tmp_path: Path) -> None:
    bad = pl.DataFrame({"user": [None], "item": ["9"], "timestamp": [1]}, schema=ROWS.schema)
    between = pl.concat([ROWS[:3], bad, ROWS[3:]])
    found = ingested(tmp_path, between, max_rejected_share=0.5)
    assert found.record["digest"] == ingested(tmp_path).record["digest"]


def test_as_of_and_window_select_and_are_recorded(tmp_path: Path) -> None:
    as_of = datetime(1970, 1, 1, 0, 0, 11, tzinfo=UTC)
    found = ingested(tmp_path, as_of=as_of, window=timedelta(seconds=7))
    assert (found.events["timestamp"] // 10**6).to_list() == [5, 9, 11]
    assert found.record["as_of"] == "1970-01-01T00:00:11+00:00"
    assert found.record["window_seconds"] == 7.0
    assert found.items["id"].to_list() == ["9", "10"]


def test_a_time_after_tomorrow_is_from_the_future_and_tomorrow_is_not(tmp_path: Path) -> None:
    times = [int((NOW + timedelta(hours=hours)).timestamp()) for hours in (-1, 0, 23, 25, -2, -3)]
    found = ingested(tmp_path, ROWS.with_columns(timestamp=pl.Series(times)), max_rejected_share=0.5)
    assert found.record["rejected"] == {"future time": 1}
    assert found.rejected["row"].to_list() == [4]


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"e\.csv has no rows"):
        ingested(tmp_path, ROWS.clear())


def test_one_user_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one user, 'a', in 3 selected events"):
        ingested(tmp_path, ROWS.filter(pl.col("user") == "a"))


def test_rows_that_are_all_rejected_but_accepted_leave_no_user(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no user at all"):
        ingested(tmp_path, ROWS.with_columns(timestamp=pl.lit("soon")), max_rejected_share=1.0)


def test_too_many_bad_rows_fail_with_counts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="6 x time does not parse"):
        ingested(tmp_path, ROWS.with_columns(timestamp=pl.lit("soon")))


def written(folder: Path, found: Ingested) -> None:
    found.events.write_parquet(folder / "events.parquet")
    found.items.write_parquet(folder / "items.parquet")
    (folder / "source.json").write_text(json.dumps(found.record))


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    found = ingested(tmp_path)
    written(tmp_path, found)
    events, items, digest = read_ingested(tmp_path)
    assert events.equals(found.events) and items.equals(found.items)
    assert digest == events_digest(found.events)


def test_events_that_are_not_those_of_the_record_are_refused(tmp_path: Path) -> None:
    found = ingested(tmp_path)
    written(tmp_path, found._replace(events=found.events[:-1]))
    with pytest.raises(IntegrityError, match=r"events.parquet does not hold"):
        read_ingested(tmp_path)


def test_damaged_or_missing_events_are_refused(tmp_path: Path) -> None:
    written(tmp_path, ingested(tmp_path))
    content = (tmp_path / "events.parquet").read_bytes()
    (tmp_path / "events.parquet").write_bytes(content[: len(content) // 2])
    with pytest.raises(IntegrityError, match="damaged"):
        read_ingested(tmp_path)
    (tmp_path / "events.parquet").unlink()
    with pytest.raises(DataError, match="incomplete"):
        read_ingested(tmp_path)
