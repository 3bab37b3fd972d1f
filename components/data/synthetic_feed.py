"""A feed drawn from a known process, so that retrieval and ranking can be tried in minutes on any machine.

Items have a topic, a quality, and a few successors. A user is shown what a plain policy draws from his or her tastes
and from what is popular, and is interested by a rule that also looks at what interested before. What interests is
stayed with, liked and shared more often; what does not is now and then hidden. Which impressions came to nothing says
as much as which did: a model of what is shown next cannot read that, one of what comes of an impression can.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from components.data.rows import FEATURE, RawRows, SourceFile
from components.settings.feed_source import SyntheticFeedSource

TOPICS, FORMATS, SUCCESSORS = 8, ("text", "photo", "video"), 6
UNKNOWN = 0.05
"""Share of the items of which nobody knows topic and format."""

_START = 1_704_067_200  # 2024-01-01T00:00:00Z, in seconds.
_MONTH = 30 * 86_400
_SHORT, _LONG = 4.0, 25.0  # Seconds of dwell, in the middle, without interest and with it.


class _World(NamedTuple):
    topic: np.ndarray  # (items,)
    form: np.ndarray  # (items,)
    quality: np.ndarray  # (items,)
    successors: np.ndarray  # (items, SUCCESSORS)
    taste: np.ndarray  # (users, TOPICS), around 0.
    likes_form: np.ndarray  # (users, forms), around 0.


class SyntheticFeed:
    """The generator as a source."""

    time_unit = "seconds"

    def __init__(self, settings: SyntheticFeedSource) -> None:
        self._settings = settings

    def about(self) -> dict[str, Any]:
        """A name."""
        return {"title": "Synthetic feed"}

    def files(self) -> list[SourceFile]:
        """None: nothing is read."""
        return []

    def batches(self) -> Iterator[RawRows]:
        """Everything at once."""
        yield RawRows("synthetic", 1, draw_feed(self._settings))

    def titles(self) -> None:
        """None."""


def draw_feed(source: SyntheticFeedSource) -> pl.DataFrame:
    """Draw a log; the same settings give the same one.

    Args:
        source: Sizes and seed.

    Returns:
        ``user``, ``item``, ``timestamp`` (seconds since 1970), ``event``, ``dwell`` (seconds, of views alone),
        ``feature.topic`` and ``feature.format``, in the order of time. Nobody is shown an item twice.
    """
    random = np.random.default_rng(source.seed)
    world = _world(source, random)
    shown, interesting = _impressions(source, world, random)
    # Everybody comes and goes over the whole month.
    times = np.sort(_START + random.integers(0, _MONTH, shown.shape), axis=1) * 1.0
    dwell = np.where(interesting, _LONG, _SHORT) * np.exp(random.normal(0, 0.6, shown.shape))
    user = np.broadcast_to(np.arange(1, source.users + 1)[:, None], shown.shape)
    parts = [_rows("view", user, shown, times, np.round(dwell, 1))]
    for event, with_interest, without in (("like", 0.4, 0.03), ("share", 0.1, 0.0), ("hide", 0.0, 0.04)):
        happened = random.random(shown.shape) < np.where(interesting, with_interest, without)
        parts.append(_rows(event, user[happened], shown[happened], (times + dwell)[happened], None))
    unknown = random.random(source.items) < UNKNOWN
    features = {
        f"{FEATURE}topic": [None if unknown[item] else f"topic {world.topic[item]}" for item in range(source.items)],
        f"{FEATURE}format": [None if unknown[item] else FORMATS[world.form[item]] for item in range(source.items)],
    }
    items = pl.DataFrame({"item": np.arange(1, source.items + 1), **features})
    log = pl.concat(parts).sort("timestamp", maintain_order=True)
    return log.join(items, on="item", how="left", maintain_order="left")


def _world(source: SyntheticFeedSource, random: np.random.Generator) -> _World:
    topic = random.integers(TOPICS, size=source.items)
    # Most successors are of the topic, some lead elsewhere.
    near = np.where(topic[:, None] == topic[None], 6.0, 1.0) * random.random((source.items, source.items))
    np.fill_diagonal(near, 0)
    return _World(
        topic=topic,
        form=random.integers(len(FORMATS), size=source.items),
        quality=random.normal(size=source.items),
        successors=np.argsort(-near, axis=1)[:, :SUCCESSORS],
        taste=random.normal(size=(source.users, TOPICS)),
        likes_form=random.normal(size=(source.users, len(FORMATS))),
    )


def _impressions(
    source: SyntheticFeedSource, world: _World, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What each user is shown, item from 1, and whether it interests, ``(users, impressions)`` each."""
    users, everyone = source.users, np.arange(source.users)
    taste = world.taste[:, world.topic]
    own = 1.4 * taste + 0.8 * world.likes_form[:, world.form] + 0.5 * world.quality
    policy = 0.6 * taste + 0.6 * world.quality
    unseen = np.ones((users, source.items), dtype=bool)
    # What somebody was last interested in; nothing at first.
    last = np.full(users, -1)
    shown, interesting = (np.zeros((users, source.impressions_per_user), dtype=kind) for kind in (np.int64, bool))
    for step in range(source.impressions_per_user):
        follows = np.zeros((users, source.items), dtype=bool)
        met = np.flatnonzero(last >= 0)
        follows[met[:, None], world.successors[last[met]]] = True
        # The largest of the scores with Gumbel noise is a draw from their softmax.
        score = np.where(unseen, policy + 1.5 * follows, -np.inf) + random.gumbel(size=policy.shape)
        item = score.argmax(axis=1)
        log_odds = own[everyone, item] + 2.0 * follows[everyone, item] - 1.8
        likes = random.random(users) < 1 / (1 + np.exp(-log_odds))
        unseen[everyone, item] = False
        last = np.where(likes, item, last)
        shown[:, step], interesting[:, step] = item + 1, likes
    return shown, interesting


def _rows(event: str, user: np.ndarray, item: np.ndarray, times: np.ndarray, dwell: np.ndarray | None) -> pl.DataFrame:
    seconds = pl.Series(np.full(user.size, np.nan) if dwell is None else dwell.ravel()).fill_nan(None)
    return pl.DataFrame(
        {
            "user": user.ravel().astype(np.int64),
            "item": item.ravel(),
            "timestamp": times.ravel().astype(np.int64),
            "event": pl.repeat(event, user.size, eager=True),
            "dwell": seconds.cast(pl.Float64),
        }
    )
