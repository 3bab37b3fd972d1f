"""What a frontier prints of its points: levels, shares, bytes, and what becomes of the less popular targets."""

import numpy as np
import pytest

from tests.benchmarks.frontier.points import (
    MEMBER,
    Costs,
    Judged,
    bytes_share,
    difference,
    level,
    of_less_popular,
    share,
)

POINTS = 400


def judged(point: str, seed: int, values: dict[str, np.ndarray], **sizes: int) -> Judged:
    """Half of the targets have 3 events, half have 50."""
    costs = {name: Costs(sizes.get(name, 100), 4.0, 0.5) for name in values} | {
        MEMBER: Costs(1000, 8.0, 0.9),
    }
    events = np.where(np.arange(POINTS) % 2 == 0, 3, 50)
    return Judged(point, seed, "", "", "NDCG@10", np.arange(POINTS), values, events, costs)


def found_at(rare: float, popular: float, seed: int) -> np.ndarray:
    """Targets that are found with these chances, as NDCG."""
    chance = np.where(np.arange(POINTS) % 2 == 0, rare, popular)
    return np.where(np.random.default_rng(seed).random(POINTS) < chance, 0.5, 0.0)


@pytest.fixture
def points() -> list[Judged]:
    """A student that finds more of the rare ones, and as many in all."""
    return [
        judged(
            "small",
            seed,
            {"student": found_at(0.6, 0.4, seed), "baseline": found_at(0.2, 0.8, 10 + seed)},
            student=50,
        )
        for seed in range(3)
    ]


def test_the_less_popular_half_is_judged_by_itself(points: list[Judged]) -> None:
    student, baseline = ("small", "student"), ("small", "baseline")
    rare = of_less_popular("rare", points, student, baseline)
    assert rare.value == pytest.approx(0.4, abs=0.06) and rare.low is not None and rare.low > 0
    back = of_less_popular("rare", points, baseline, student)
    assert back.value == pytest.approx(-rare.value)
    everything = difference("all", points, student, baseline)
    assert everything.value == pytest.approx(0.0, abs=0.03)


def test_a_share_is_of_the_mean_over_the_seeds(points: list[Judged]) -> None:
    one, other = (level("", points, "small", name).value for name in ("student", "baseline"))
    kept = share("kept", points, ("small", "student"), ("small", "baseline"))
    assert kept.value == pytest.approx(one / other)
    assert kept.low is not None and kept.high is not None and kept.low < kept.value < kept.high


def test_bytes_are_a_share_of_one_members(points: list[Judged]) -> None:
    assert bytes_share("bytes", points, ("small", "student")).value == pytest.approx(0.05)
