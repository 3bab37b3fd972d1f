"""The k-core keeps the largest set of events that satisfies both floors."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from components.data.filtering import k_core

PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=60)
FLOORS = st.integers(1, 5)


def arrays(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


@given(PAIRS, FLOORS, FLOORS)
def test_every_user_and_item_that_remains_has_enough_events(
    pairs: list[tuple[int, int]], users: int, items: int
) -> None:
    user, item = arrays(pairs)
    kept = k_core(user, item, users, items)
    for column, floor in ((user, users), (item, items)):
        counts = np.bincount(column[kept]) if kept.any() else np.array([])
        assert (counts[counts > 0] >= floor).all()


@given(PAIRS, FLOORS, FLOORS)
def test_dropping_one_event_a_time_never_keeps_more(pairs: list[tuple[int, int]], users: int, items: int) -> None:
    user, item = arrays(pairs)
    left = list(range(len(pairs)))
    while True:
        poor = [
            place
            for place in left
            if sum(user[other] == user[place] for other in left) < users
            or sum(item[other] == item[place] for other in left) < items
        ]
        if not poor:
            break
        left.remove(poor[-1])
    assert np.flatnonzero(k_core(user, item, users, items)).tolist() == left


def test_a_drop_that_causes_another_is_followed_up() -> None:
    user, item = arrays([(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3)])
    assert not k_core(user, item, 2, 2).any()


def test_floors_of_one_keep_everything() -> None:
    user, item = arrays([(0, 3), (5, 0)])
    assert k_core(user, item, 1, 1).all()
