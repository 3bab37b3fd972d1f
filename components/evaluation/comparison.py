"""Is a contender better or worse than the teacher, or is it chance? The paired bootstrap over users.

Users are drawn again with replacement, and every contender is judged on the same draw, so that what makes a user easy
or hard for all of them cancels out. Users, not targets, are drawn: the targets of one user are not independent.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13 (percentile intervals); Sakai,
"Evaluating evaluation metrics based on the bootstrap", SIGIR 2006 (paired, for rankings).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

# Draws held in memory at once: users times resamples.
_DRAWS = 1 << 22


class Interval(NamedTuple):
    """An estimate from all users, and the interval that holds the true value with 95 % confidence."""

    estimate: float
    low: float
    high: float


class Comparison(NamedTuple):
    """One contender beside the reference.

    Attributes:
        difference: Mean of the contender less mean of the reference.
        retention: Mean of the contender as a share of the mean of the reference; nan where the latter is 0.
    """

    difference: Interval
    retention: Interval


def paired_bootstrap(
    values: Mapping[str, np.ndarray], reference: np.ndarray, users: np.ndarray, *, samples: int, seed: int
) -> dict[str, Comparison]:
    """Compare contenders with a reference on the same targets.

    Args:
        values: Per contender, the metric of each target, ``(targets,)``.
        reference: The same of the reference, ``(targets,)``.
        users: ``(targets,)`` int64, the user of each target.
        samples: How often users are drawn again.
        seed: Of the draws; the same seed gives the same intervals.
    """
    _, group = np.unique(users, return_inverse=True)
    count = int(group.max()) + 1
    per_user = [_summed(column, group, count) for column in (np.ones(len(group)), reference, *values.values())]
    gained = [_summed(column - reference, group, count) for column in values.values()]
    totals = np.stack([*per_user, *gained], axis=1)
    drawn = np.concatenate(list(_resampled(totals, samples, np.random.default_rng(seed))))
    whole = totals.sum(axis=0)
    return {
        name: Comparison(
            difference=_interval(whole[gain] / whole[0], drawn[:, gain] / drawn[:, 0]),
            retention=_interval(_share(whole[mean], whole[1]), _share(drawn[:, mean], drawn[:, 1])),
        )
        for name, mean, gain in zip(
            values, range(2, 2 + len(values)), range(2 + len(values), totals.shape[1]), strict=True
        )
    }


def standard_error(values: np.ndarray, users: np.ndarray) -> float:
    """Standard error of a mean over targets whose users are independent, from the users' deviations.

    The variance of a ratio estimator, Cochran, "Sampling Techniques", 1977, section 6.4; with one target a user it
    is the usual standard error of a mean.

    Args:
        values: ``(targets,)``.
        users: ``(targets,)``.
    """
    _, group = np.unique(users, return_inverse=True)
    count = int(group.max()) + 1
    if count < 2:
        return float("nan")
    deviations = _summed(values - values.mean(), group, count)
    return float(np.sqrt(count / (count - 1) * np.square(deviations).sum()) / len(values))


def _resampled(totals: np.ndarray, samples: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Sums over the users of each draw, a list of ``(draws, columns)`` for ``(users, columns)``."""
    users = len(totals)
    chunk = max(1, _DRAWS // users)
    sums = []
    for start in range(0, samples, chunk):
        draws = min(chunk, samples - start)
        # How often each user is drawn is multinomial; counting whole draws is faster than sampling the counts.
        drawn = generator.integers(0, users, size=(draws, users)) + np.arange(draws)[:, None] * users
        times = np.bincount(drawn.ravel(), minlength=draws * users).reshape(draws, users)
        sums.append(times @ totals)
    return sums


def _summed(values: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    return np.bincount(group, weights=values, minlength=groups)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _interval(estimate: np.ndarray, drawn: np.ndarray) -> Interval:
    kept = drawn[np.isfinite(drawn)]
    low, high = np.quantile(kept, (0.025, 0.975)) if len(kept) else (np.nan, np.nan)
    return Interval(float(estimate), float(low), float(high))
