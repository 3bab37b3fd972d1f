"""The order of ids depends on nothing but the ids."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from components.data.vocabulary import codes, vocabulary

IDS = st.lists(st.text(alphabet="0123456789abü ٣", min_size=1, max_size=20), min_size=1, max_size=30)


def test_numbers_come_first_by_value_then_texts() -> None:
    assert vocabulary(pl.Series(["b", "10", "9", "a", "10", "007", "7"])).to_list() == ["007", "7", "9", "10", "a", "b"]


def test_a_number_too_long_to_count_is_a_text() -> None:
    long = "9" * 30
    assert vocabulary(pl.Series([long, "2", "10"])).to_list() == ["2", "10", long]


@given(IDS, st.randoms())
def test_the_order_of_the_rows_changes_nothing(ids: list[str], random) -> None:
    shuffled = random.sample(ids, len(ids))
    assert vocabulary(pl.Series(ids)).to_list() == vocabulary(pl.Series(shuffled)).to_list()


@given(IDS)
def test_codes_lead_back_to_the_ids(ids: list[str]) -> None:
    words = vocabulary(pl.Series(ids))
    numbers = codes(pl.Series(ids), words)
    assert numbers.dtype == np.int32
    assert words.gather(numbers).to_list() == ids
    assert sorted(set(numbers.tolist())) == list(range(len(words)))
