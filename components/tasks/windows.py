"""Which stretch of a history predicts which of its events.

A window is a run of consecutive rows of one user, at most ``max_length`` long, that a network reads. Each of its last
``scored`` rows predicts the row that follows it. However histories are cut, every training point is scored by exactly
one window, and no window holds the row that it is to predict last.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from components.data.dataset import PreparedDataset


class Windows(NamedTuple):
    """W windows over the rows of a prepared data set.

    Attributes:
        start: ``(W,)`` int64, the first row that is read.
        length: ``(W,)`` int64, how many rows are read.
        scored: ``(W,)`` int64, how many of the last of them predict their successor.
    """

    start: np.ndarray
    length: np.ndarray
    scored: np.ndarray

    def take(self, rows: np.ndarray) -> Windows:
        """The windows at ``rows``."""
        return Windows(self.start[rows], self.length[rows], self.scored[rows])


def disjoint_windows(dataset: PreparedDataset, max_length: int, random: np.random.Generator) -> Windows:
    """Each training history cut into windows that do not overlap, at places that ``random`` moves.

    The cut differs from epoch to epoch, so that no event is always the first of its window.
    """
    first, points = _training_ranges(dataset)
    # The first window of a long history takes a random share of one; the others follow it, whole.
    head = np.where(points > max_length, random.integers(1, max_length + 1, size=len(points)), points)
    return _cut(first, points, head, max_length, max_length)


def fixed_windows(dataset: PreparedDataset, max_length: int) -> Windows:
    """Each training history cut so that a position beyond the first window has at least half a window before it.

    The cut is the same for ever: a soft label belongs to one point and one context.
    """
    first, points = _training_ranges(dataset)
    return _cut(first, points, np.minimum(points, max_length), max(1, max_length // 2), max_length)


def _training_ranges(dataset: PreparedDataset) -> tuple[np.ndarray, np.ndarray]:
    """First row and number of prediction points of each user that has any."""
    events = np.bincount(dataset.user[dataset.split == 0], minlength=dataset.users)
    with_points = np.flatnonzero(events > 1)
    return dataset.offsets[:-1][with_points], events[with_points] - 1


def _cut(first: np.ndarray, points: np.ndarray, head: np.ndarray, step: int, max_length: int) -> Windows:
    """Windows that score ``head`` points of each history and then ``step`` at a time, each with all rows that fit."""
    counts = 1 + -(-(points - head) // step)
    owner = np.repeat(np.arange(len(points)), counts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    end = np.minimum(head[owner] + number * step, points[owner])
    scored = np.where(number == 0, end, end - (head[owner] + (number - 1) * step))
    length = scored if step == max_length else np.minimum(end, max_length)
    return Windows(first[owner] + end - length, length, scored)
