"""Times of any usual form become microseconds in UTC."""

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.times import iso, microseconds

MOMENT = 881_250_949_000_000  # 1997-12-04T15:55:49Z


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("881250949", MOMENT),
        ("881250949000", MOMENT),
        ("881250949000000", MOMENT),
        ("881250949000000000", MOMENT),
        ("881250949.5", MOMENT + 500_000),
        (" 881250949 ", MOMENT),
        ("1997-12-04T15:55:49", MOMENT),
        ("1997-12-04T15:55:49Z", MOMENT),
        ("1997-12-04 15:55:49", MOMENT),
        ("1997-12-04T16:55:49.250+01:00", MOMENT + 250_000),
        ("1997-12-04 16:55:49+01:00", MOMENT),
        ("1997-12-04 15:55", MOMENT - 49_000_000),
        ("1997-12-04", 881_193_600_000_000),
        ("-5", -5_000_000),
        ("soon", None),
        ("1997-13-04", None),
        ("nan", None),
        ("", None),
        (None, None),
    ],
)
def test_a_text_is_a_number_or_iso_8601(text: str | None, expected: int | None) -> None:
    assert microseconds(pl.Series([text], dtype=pl.String))[0] == expected


def test_each_text_of_a_mixed_column_is_read_by_its_own_form() -> None:
    mixed = pl.Series(["881250949", "1997-12-04T15:55:49Z", "x", "1997-12-04 15:55:49", "881250949.0"])
    assert microseconds(mixed).to_list() == [MOMENT, MOMENT, None, MOMENT, MOMENT]


@pytest.mark.parametrize(
    "values",
    [
        pl.Series([datetime(1997, 12, 4, 15, 55, 49)]),
        pl.Series([datetime(1997, 12, 4, 15, 55, 49, tzinfo=UTC)]),
        pl.Series([datetime(1997, 12, 4, 17, 55, 49, tzinfo=timezone(timedelta(hours=2)))]),
        pl.Series([datetime(1997, 12, 4, 15, 55, 49)], dtype=pl.Datetime("ms")),
        pl.Series([datetime(1997, 12, 4, 15, 55, 49)], dtype=pl.Datetime("ns")),
        pl.Series([881250949], dtype=pl.UInt32),
        pl.Series([881250949.0]),
        pl.Series([881250949000.0]),
    ],
    ids=str,
)
def test_every_type_of_the_same_moment_agrees(values: pl.Series) -> None:
    assert microseconds(values).to_list() == [MOMENT]


def test_a_date_is_its_midnight() -> None:
    assert microseconds(pl.Series([date(1970, 1, 2)])).to_list() == [86_400_000_000]


@given(st.integers(100_000_000, 10_000_000_000))
def test_the_unit_is_told_from_the_size(seconds: int) -> None:
    scaled = pl.Series([seconds, seconds * 1000, seconds * 10**6])
    assert microseconds(scaled).to_list() == [seconds * 10**6] * 3


def test_a_unit_that_is_given_overrules_the_size() -> None:
    early = pl.Series([86_400_000])
    assert microseconds(early, "milliseconds").to_list() == [86_400_000_000]
    assert microseconds(early, "auto").to_list() == [86_400_000_000_000]


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(["auto", "seconds", "milliseconds", "microseconds"]))
def test_absurd_numbers_keep_their_sign_and_never_wrap_into_the_present(number: int, unit: str) -> None:
    time = microseconds(pl.Series([number], dtype=pl.Int64), unit)[0]
    assert (time > 0) == (number > 0) or abs(number) < 1000
    if abs(number) > 10**13 and unit == "seconds":
        assert abs(time) > 10**18


def test_what_is_never_a_time_is_null() -> None:
    assert microseconds(pl.Series([True, False])).to_list() == [None, None]


def test_iso_names_the_zone() -> None:
    assert iso(MOMENT) == "1997-12-04T15:55:49Z"
