import json
import math

import numpy as np
import polars as pl
import pytest

from components.data.dataset import PreparedDataset
from components.errors import DataError
from components.evaluation.drift import drift_between, stability_index
from components.tasks.beyond import Population
from components.tasks.building import task_of


def population(items: dict[str, int], users: dict[str, int]) -> Population:
    return Population(
        pl.Series(list(items), dtype=pl.String),
        np.array(list(items.values())),
        pl.Series(list(users), dtype=pl.String),
        np.array(list(users.values())),
    )


BEFORE = population({f"i{n}": 100 - n for n in range(50)}, {f"u{n}": 5 + n % 40 for n in range(200)})


def test_the_same_data_have_not_moved_at_all() -> None:
    drift = drift_between(BEFORE, BEFORE)
    assert drift.psi == drift.total_variation == drift.jensen_shannon == 0
    assert drift.new_items == drift.new_users == drift.gone_items == 0


def test_new_and_gone_items_and_users_are_counted() -> None:
    after = population({"i0": 100, "i1": 99, "new": 1}, {"u0": 5, "u1": 6, "x": 7, "y": 8})
    drift = drift_between(BEFORE, after)
    assert drift.new_items == pytest.approx(1 / 3)
    assert drift.gone_items == pytest.approx(48 / 50)
    assert drift.new_users == pytest.approx(1 / 2)
    assert drift.new_item_events == pytest.approx(1 / 200)


def test_divergences_have_their_known_values() -> None:
    one, other = population({"a": 8, "b": 0}, {"u": 8}), population({"a": 0, "b": 8}, {"u": 8})
    drift = drift_between(one, other)
    assert drift.total_variation == 1 and drift.jensen_shannon == pytest.approx(1)
    half = drift_between(one, population({"a": 4, "b": 4}, {"u": 8}))
    assert half.total_variation == 0.5
    assert half.jensen_shannon == pytest.approx(0.5 * math.log2(4 / 3) + 0.5 * (0.5 * math.log2(2 / 3) + 0.5))


def test_the_stability_index_is_the_one_of_the_books() -> None:
    expected = sum((q - p) * math.log(q / p) for p, q in ((0.5, 0.25), (0.25, 0.25), (0.25, 0.5)))
    assert stability_index(np.array([50, 25, 25]), np.array([25, 25, 50])) == pytest.approx(expected)
    assert math.isfinite(stability_index(np.array([10, 0]), np.array([0, 10])))


def test_turned_popularity_and_shorter_histories_move_their_index() -> None:
    turned = Population(BEFORE.items, BEFORE.item_events[::-1] ** 2, BEFORE.users, BEFORE.user_events)
    drift = drift_between(BEFORE, turned)
    assert drift.popularity_psi > 0.25 and drift.history_psi == 0
    shorter = Population(BEFORE.items, BEFORE.item_events, BEFORE.users, BEFORE.user_events // 3)
    drift = drift_between(BEFORE, shorter)
    assert drift.history_psi > 0.25 and drift.popularity_psi == 0 and drift.psi == 0


def test_more_of_the_same_is_no_drift() -> None:
    drift = drift_between(BEFORE, BEFORE._replace(item_events=BEFORE.item_events * 3))
    assert drift.popularity_psi == pytest.approx(0) and drift.total_variation == pytest.approx(0)


def test_the_order_of_ids_changes_no_byte_of_the_record(prepared: PreparedDataset) -> None:
    found = task_of("next_item", prepared).population()
    order = np.random.default_rng(1).permutation(len(found.items))
    mixed = found._replace(items=found.items.gather(order), item_events=found.item_events[order])
    one, other = drift_between(BEFORE, found).record(), drift_between(BEFORE, mixed).record()
    assert json.dumps(one) == json.dumps(other)
    assert found.item_events.sum() == found.user_events.sum() == len(prepared.item)


def samples(values: np.ndarray, yes: int) -> Population:
    labels, nobody = pl.Series(["no", "yes"]), pl.Series([], dtype=pl.String)
    return Population(labels, np.array([len(values) - yes, yes]), nobody, np.zeros(0, dtype=np.int64), values)


def test_samples_move_by_their_values_and_by_their_labels() -> None:
    values = np.random.default_rng(0).standard_normal((2000, 3))
    before = samples(values, 800)
    assert drift_between(before, before).psi == 0
    shifted = values + np.array([0.0, 1.0, 0.0])
    drift = drift_between(before, samples(shifted, 800))
    assert drift.values_psi == drift.psi > 0.5 and drift.popularity_psi == 0
    other = drift_between(before, samples(values, 1400))
    assert other.psi == other.popularity_psi > 0.2 and other.values_psi == 0
    assert "users" not in " ".join(drift.lines()) and "labels 2 -> 2" in drift.lines()[0]
    json.dumps(drift.record(), allow_nan=False)
    with pytest.raises(DataError, match="samples have 2 values, and those of the live version 3"):
        drift_between(before, samples(values[:, :2], 800))
