"""Interactions drawn from a known process, so that the whole pipeline can be tried in seconds.

Items fall into groups. Each user has a taste for some groups, each group has popular and rare items, and what comes
next follows from the last event: a sparse Markov chain gives every item a few successors. A model that reads the order
of a history must therefore clearly beat one that only counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from components.data.rows import RawRows, SourceFile
from components.settings.source import SyntheticSource

ITEMS_PER_GROUP = 12
SUCCESSORS = np.array([0.6, 0.25, 0.15])
"""Probabilities of an item's successors, the likeliest first."""
FOLLOWS = 0.85
"""How often the next event follows the chain; otherwise it is drawn from the user's taste."""
POPULARITY_EXPONENT = 0.8
"""An item's weight in its group is (rank + 1) to minus this power (Zipf's law)."""

_START = 1_704_067_200  # 2024-01-01T00:00:00Z, in seconds.
_YEAR = 365 * 86_400
_CELLS = 4_000_000  # Users are drawn in blocks of at most this many (user, item) cells, which bounds the memory.


class _World(NamedTuple):
    group: np.ndarray  # (items,) the group of each item.
    popularity: np.ndarray  # (items,) the weight of each item within its group.
    chain: np.ndarray  # (items, items) probabilities of what comes next.


class SyntheticLog:
    """The generator as a source."""

    time_unit = "seconds"

    def __init__(self, settings: SyntheticSource) -> None:
        self._settings = settings

    def about(self) -> dict[str, Any]:
        """A name."""
        return {"title": "Synthetic interactions"}

    def files(self) -> list[SourceFile]:
        """None: nothing is read."""
        return []

    def batches(self) -> Iterator[RawRows]:
        """Everything at once."""
        yield RawRows("synthetic", 1, draw_events(self._settings))

    def titles(self) -> pl.DataFrame:
        """A made-up title for every item."""
        return draw_titles(self._settings)


def draw_events(source: SyntheticSource) -> pl.DataFrame:
    """Draw a log of events in which no user meets an item twice; the same settings give the same log.

    Args:
        source: Sizes and seed.

    Returns:
        ``user``, ``item`` and ``timestamp`` (seconds since 1970) in int64, in the order of time. Some neighbouring
        events of a user share a timestamp, as they do in real logs.
    """
    random = np.random.default_rng(source.seed)
    group, popularity = _groups(source.items, random)
    world = _World(group, popularity, _chain(group, popularity, random))
    block = max(1, _CELLS // source.items)
    parts = [
        _block(np.arange(first, min(first + block, source.users)), source, world, random)
        for first in range(0, source.users, block)
    ]
    return pl.concat(parts).sort("timestamp", maintain_order=True)


def draw_titles(source: SyntheticSource) -> pl.DataFrame:
    """A title for every item: ``id`` text and ``title`` text."""
    return pl.DataFrame(
        {
            "id": [str(item) for item in range(1, source.items + 1)],
            "title": [f"Synthetic item {item}" for item in range(1, source.items + 1)],
        }
    )


def _groups(items: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The group ``(items,)`` of each item, and its weight ``(items,)`` within the group."""
    group = random.permutation(items) // ITEMS_PER_GROUP
    rank = np.empty(items)
    for number in range(group.max() + 1):
        members = np.flatnonzero(group == number)
        rank[members] = np.arange(len(members))
    return group, (rank + 1) ** -POPULARITY_EXPONENT


def _chain(group: np.ndarray, popularity: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """``(items, items)`` transition probabilities: the first successors in the same group, the last one anywhere."""
    items = len(group)
    chain = np.zeros((items, items))
    for item in range(items):
        inside = np.setdiff1d(np.flatnonzero(group == group[item]), item)
        near = min(len(SUCCESSORS) - 1, len(inside))
        weights = popularity[inside]
        chosen = random.choice(inside, near, replace=False, p=weights / weights.sum()) if near else inside
        anywhere = np.setdiff1d(np.arange(items), [item, *chosen])
        successors = [*chosen, *random.choice(anywhere, len(SUCCESSORS) - near, replace=False)]
        chain[item, successors] = SUCCESSORS
    return chain


def _block(users: np.ndarray, source: SyntheticSource, world: _World, random: np.random.Generator) -> pl.DataFrame:
    """The events of some users, user by user in their order, with ids from 1."""
    count, items = len(users), source.items
    # A Dirichlet with a small concentration: most of a user's taste lies in a few groups.
    interests = random.dirichlet(np.full(world.group.max() + 1, 0.3), size=count)
    taste = (interests + 1e-3)[:, world.group] * world.popularity
    taste /= taste.sum(axis=1, keepdims=True)

    mean = source.events_per_user
    lengths = np.rint(0.5 * mean + random.exponential(0.5 * mean, count)).astype(int)
    lengths = np.clip(lengths, max(3, mean // 2), max(3, min(3 * mean, items // 2)))

    everyone = np.arange(count)
    unseen = np.ones((count, items))
    history = np.zeros((count, lengths.max()), dtype=np.int64)
    odds = taste
    for step in range(lengths.max()):
        sums = np.cumsum(odds * unseen, axis=1)
        # Inverse transform sampling; the clip covers a draw that rounding puts at the very end.
        drawn = (sums <= random.random((count, 1)) * sums[:, -1:]).sum(axis=1).clip(max=items - 1)
        history[:, step] = drawn
        unseen[everyone, drawn] = 0.0
        odds = FOLLOWS * world.chain[drawn] + (1 - FOLLOWS) * taste

    gaps = np.rint(random.exponential(6 * 3600, history.shape)).astype(np.int64)
    gaps[random.random(history.shape) < 0.1] = 0
    times = _START + random.integers(0, _YEAR, (count, 1)) + np.cumsum(gaps, axis=1)
    valid = np.arange(lengths.max()) < lengths[:, None]
    return pl.DataFrame(
        {
            "user": np.repeat(users + 1, lengths).astype(np.int64),
            "item": history[valid] + 1,
            "timestamp": times[valid],
        }
    )
