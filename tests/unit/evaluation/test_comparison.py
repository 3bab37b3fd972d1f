import math

import numpy as np
import pytest

from components.evaluation.comparison import paired_bootstrap, standard_error

GENERATOR = np.random.default_rng(7)
REFERENCE = GENERATOR.random(400)
USERS = np.arange(400)


def compared(values: np.ndarray, users: np.ndarray = USERS, reference: np.ndarray = REFERENCE, samples: int = 2000):
    return paired_bootstrap({"contender": values}, reference, users, samples=samples, seed=0)["contender"]


def test_a_contender_equal_to_the_reference_differs_by_exactly_nothing() -> None:
    result = compared(REFERENCE.copy())
    assert result.difference == (0.0, 0.0, 0.0)
    assert result.retention == (1.0, 1.0, 1.0)


def test_a_known_shift_is_found_and_noise_shared_by_both_cancels_out() -> None:
    difference = compared(REFERENCE + 0.01).difference
    assert difference == pytest.approx((0.01, 0.01, 0.01))
    # Unpaired, the standard error of either mean alone would be larger than the shift.
    assert standard_error(REFERENCE, USERS) > 0.01


def test_the_interval_agrees_with_the_normal_one_of_the_paired_differences() -> None:
    values = REFERENCE + GENERATOR.normal(0.02, 0.1, 400)
    difference = compared(values, samples=8000).difference
    change = values - REFERENCE
    half = 1.96 * change.std(ddof=1) / math.sqrt(400)
    assert difference.estimate == pytest.approx(change.mean())
    assert difference.low == pytest.approx(change.mean() - half, abs=0.05 * half)
    assert difference.high == pytest.approx(change.mean() + half, abs=0.05 * half)


def test_the_interval_holds_the_truth_about_as_often_as_it_promises() -> None:
    generator = np.random.default_rng(1)
    users = np.repeat(np.arange(60), 3)
    held = 0
    for _ in range(200):
        of_user = np.repeat(generator.normal(0.05, 0.2, 60), 3)
        noise = generator.normal(0, 0.1, 180)
        low, high = compared(of_user + noise, users, np.zeros(180), samples=400).difference[1:]
        held += low <= 0.05 <= high
    assert 0.90 <= held / 200 <= 0.99


def test_targets_of_one_user_are_drawn_together() -> None:
    gain = np.repeat(GENERATOR.normal(0, 1, 40), 10)
    together = compared(gain, np.repeat(np.arange(40), 10), np.zeros(400)).difference
    apart = compared(gain, USERS, np.zeros(400)).difference
    assert together.high - together.low > 2 * (apart.high - apart.low)
    assert standard_error(gain, np.repeat(np.arange(40), 10)) == pytest.approx(gain[::10].std(ddof=1) / math.sqrt(40))


def test_the_same_seed_gives_the_same_interval_and_another_seed_does_not() -> None:
    values = {"contender": REFERENCE + GENERATOR.normal(0, 0.1, 400)}
    first, same, other = (paired_bootstrap(values, REFERENCE, USERS, samples=300, seed=seed) for seed in (1, 1, 2))
    assert first == same
    assert first != other


def test_a_reference_that_finds_nothing_gives_no_retention() -> None:
    assert math.isnan(compared(REFERENCE, reference=np.zeros(400)).retention.estimate)
