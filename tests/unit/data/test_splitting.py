"""Nothing is learned from a time that is also measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.data.splitting import TEST, TRAIN, VALIDATION, split_events
from components.errors import DataError
from components.settings.prepare import PrepareSettings

TEMPORAL = PrepareSettings(split="temporal", validation_share=0.2, test_share=0.1)
ONE_OUT = PrepareSettings(split="leave_one_out")


def test_the_last_event_of_each_user_is_the_test_and_the_one_before_the_validation() -> None:
    split = split_events(np.zeros(7, dtype=np.int64), np.array([0, 4, 7]), ONE_OUT)
    assert split.tolist() == [0, 0, 1, 2, 0, 1, 2]
    assert split.dtype == np.int8


def test_the_newest_shares_of_all_events_are_validation_and_test() -> None:
    times = np.arange(100)[::-1].copy()
    split = split_events(times, np.array([0, 100]), TEMPORAL)
    assert np.bincount(split).tolist() == [70, 20, 10]
    assert (split[times >= 90] == TEST).all()
    assert (split[times < 70] == TRAIN).all()


@given(st.lists(st.integers(0, 30), min_size=30, max_size=200))
def test_events_of_one_instant_are_never_divided(times: list[int]) -> None:
    stamps = np.array(times, dtype=np.int64)
    try:
        split = split_events(stamps, np.array([0, len(stamps)]), TEMPORAL)
    except DataError:
        return
    assert stamps[split == TRAIN].max() < stamps[split == VALIDATION].min()
    assert stamps[split == VALIDATION].max() < stamps[split == TEST].min()


def test_too_many_ties_are_an_error_that_names_what_is_empty() -> None:
    with pytest.raises(DataError, match=r"leaves no training and no validation events.*100 events share"):
        split_events(np.zeros(100, dtype=np.int64), np.array([0, 100]), TEMPORAL)
