"""as_of and window select events by time."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from components.data.selection import select
from components.data.times import DAY
from components.errors import DataError

EVENTS = pl.DataFrame({"timestamp": [day * DAY for day in range(10)]})


def days(selected: pl.DataFrame) -> list[int]:
    return (selected["timestamp"] // DAY).to_list()


def test_without_either_all_events_are_used() -> None:
    assert days(select(EVENTS, None, None)) == list(range(10))


def test_as_of_includes_its_own_instant() -> None:
    assert days(select(EVENTS, datetime(1970, 1, 4, tzinfo=UTC), None)) == [0, 1, 2, 3]


def test_a_window_ends_with_the_newest_event_and_excludes_its_beginning() -> None:
    assert days(select(EVENTS, None, timedelta(days=3))) == [7, 8, 9]


def test_a_window_ends_with_as_of() -> None:
    assert days(select(EVENTS, datetime(1970, 1, 4, 12, tzinfo=UTC), timedelta(days=2))) == [2, 3]


def test_windows_side_by_side_share_no_event_and_miss_none() -> None:
    parts = [days(select(EVENTS, datetime(1970, 1, day, tzinfo=UTC), timedelta(days=5))) for day in (5, 10)]
    assert parts[0] + parts[1] == list(range(10))


@pytest.mark.parametrize(
    ("as_of", "window"),
    [(datetime(1969, 1, 1, tzinfo=UTC), None), (datetime(1980, 1, 1, tzinfo=UTC), timedelta(days=1))],
)
def test_an_empty_selection_says_which_times_there_are(as_of: datetime, window: timedelta | None) -> None:
    with pytest.raises(DataError, match="10 events from 1970-01-01T00:00:00Z to 1970-01-10T00:00:00Z"):
        select(EVENTS, as_of, window)
