"""The generator is seeded, and what it draws can be learned from the order of events only."""

import numpy as np
import polars as pl
import pytest

from components.data.synthetic import draw_events, draw_titles
from components.settings.source import SyntheticSource

SETTINGS = {"kind": "synthetic", "path": "components/data/synthetic.py"}


def drawn(**sizes: int) -> pl.DataFrame:
    return draw_events(SyntheticSource(**SETTINGS, **sizes))  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_log_and_another_seed_another() -> None:
    assert drawn(users=20).equals(drawn(users=20))
    assert not drawn(users=20).equals(drawn(users=20, seed=1))


def test_all_users_and_about_the_asked_number_of_events_are_there() -> None:
    events = drawn(users=300, items=200, events_per_user=20)
    assert events["user"].n_unique() == 300
    assert 18 < len(events) / 300 < 22
    assert events["item"].is_between(1, 200).all()


@pytest.mark.parametrize("items", [12, 13, 50])
def test_no_user_meets_an_item_twice(items: int) -> None:
    events = drawn(users=50, items=items, events_per_user=6)
    assert not events.select("user", "item").is_duplicated().any()


def test_the_log_is_in_the_order_of_time_with_some_ties_within_users() -> None:
    events = drawn(users=50)
    assert events["timestamp"].is_sorted()
    ties = events.select("user", "timestamp").is_duplicated().mean()
    assert ties is not None and 0.05 < ties < 0.4


def test_every_item_has_a_title() -> None:
    titles = draw_titles(SyntheticSource(**SETTINGS, items=15, events_per_user=6))  # type: ignore[arg-type]
    assert titles["id"].to_list() == [str(item) for item in range(1, 16)]
    assert titles["title"].null_count() == 0


def test_what_follows_what_tells_far_more_than_popularity() -> None:
    """NDCG@10 of the last events: transition counts of the other events against item counts, seen items left out."""
    events = drawn(users=400, items=120, events_per_user=25).sort("user", "timestamp", maintain_order=True)
    histories = [group["item"].to_numpy() - 1 for _, group in events.group_by("user", maintain_order=True)]
    popularity, follows = np.zeros(120), np.zeros((120, 120))
    for history in histories:
        np.add.at(popularity, history[:-1], 1)
        np.add.at(follows, (history[:-2], history[1:-1]), 1)

    def ndcg(scores_after: np.ndarray) -> float:
        total = 0.0
        for history in histories:
            scores = scores_after[history[-2]].copy()
            scores[history[:-1]] = -1.0
            rank = int((scores > scores[history[-1]]).sum())
            total += 1 / np.log2(rank + 2) if rank < 10 else 0.0
        return total / len(histories)

    counting = ndcg(np.tile(popularity / popularity.sum(), (120, 1)))
    reading = ndcg(follows + popularity / popularity.sum())
    assert counting < 0.2
    assert reading > 2 * counting
