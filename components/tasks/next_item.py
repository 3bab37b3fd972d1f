"""Task ``next_item``: the history of a user predicts the next item, at every position of the history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.data.dataset import SPLITS, PreparedDataset, Split
from components.data.events import read_ingested
from components.data.preparing import prepare, summary, write_dataset
from components.errors import SettingsError
from components.settings.base import Settings
from components.settings.evaluation import EvaluationSettings
from components.settings.prepare import PrepareSettings
from components.tasks.batch import ITEM_FEATURES, Batch, EvaluationBatch, Feed, Scorer
from components.tasks.catalogue import CatalogueTask
from components.tasks.contract import Baseline, Judgement, Measure, Wording
from components.tasks.full_ranking import CUTOFF, HeldOutNDCG, quality, ranking
from components.tasks.held_out_events import HeldOutEvents, asked_events, held_out_events
from components.tasks.item_baselines import item_knn_scorer, popularity_scorer
from components.tasks.windows import Windows, disjoint_windows, fixed_windows

_LEFT_OUT, _KEPT = "seen items left out", "seen items kept"
_FIGURES = (("ndcg10", "NDCG@10"), ("recall10", "Recall@10"), ("mrr", "MRR"), ("coverage10", "coverage"))


class NextItem(CatalogueTask):
    """Batches over a prepared data set for networks that read at most ``max_length`` events.

    The inputs of a batch are ``items`` ``(batch, length)`` int64, padded on the right with item 0, and ``valid``
    ``(N,)`` int64: the positions in the flattened ``(batch * length)`` at which the next item is predicted.

    Attributes:
        dataset: Where the histories come from.
        max_length: Events of a history that a network sees.
    """

    name = "next_item"
    loss = "softmax"
    measures = tuple(
        Measure(key + suffix, title, group, percent=key == "coverage10")
        for suffix, group in (("", _LEFT_OUT), ("_seen_kept", _KEPT))
        for key, title in _FIGURES
    )
    best_of = CUTOFF

    @classmethod
    def prepare(cls, ingested: Path, folder: Path, settings: Settings) -> list[str]:
        """K-core, vocabulary, order, split, prediction points; see :class:`Task`. Where the source says of each event
        whether it came to something, those that did are learned from."""
        if not isinstance(settings, PrepareSettings):
            raise SettingsError("`prepare` is not for events of users and items", "Set `prepare.split` alone.")
        events, items, source_digest = read_ingested(ingested)
        if "label" in events.columns:
            events = events.filter(events["label"] == 1)
        prepared = prepare(events, items, settings, source_digest)
        write_dataset(folder, prepared)
        return summary(prepared.record)

    def __init__(self, dataset: PreparedDataset, max_length: int = 0) -> None:
        self.dataset, self.max_length = dataset, max_length
        self._item = dataset.item.astype(np.int64)
        self._point = dataset.point.astype(np.int64)
        # How often a point is learned from, as a share of the epochs: what it weighs, over what the heaviest weighs.
        self._share = None
        if dataset.weight is not None:
            self._share = dataset.weight / dataset.weight[self._point >= 0].max()

    @property
    def sizes(self) -> dict[str, Any]:
        """The features of the items, where they have any."""
        found = self.dataset.item_features
        return {} if found is None else {ITEM_FEATURES: found}

    @property
    def points(self) -> int:
        """P, the number of training points."""
        return self.dataset.points

    def training_batches(
        self, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world: int = 1
    ) -> TrainingBatches:
        """One epoch: every training point exactly once. Where events have weights, a point is in it with the
        probability of its weight over the greatest one: over the epochs, any loss is then the weighted one.

        Args:
            batch_size: A step takes windows of at most ``batch_size * max_length`` padded positions: that many whole
                windows, or more short ones.
            seed: Together with ``epoch`` decides where histories are cut, and the order of the batches.
            epoch: From 0.
            rank: Which share of each step is wanted, when ``world`` devices divide it.
            world: How many devices divide each step.
        """
        random = np.random.default_rng([seed, epoch])
        windows = disjoint_windows(self.dataset, self.max_length, random)
        members = _bucketed(windows.length, batch_size * self.max_length, random)
        drawn = None if self._share is None else random.random(len(self._share)) < self._share
        return TrainingBatches(self, windows, members, rank, world, drawn=drawn)

    def scoring_batches(self, first: int, stop: int, batch_size: int) -> Iterator[Batch]:
        """The points ``first`` to ``stop - 1`` in ascending order, each with the context it has for ever.

        Args:
            first: The first point.
            stop: One beyond the last.
            batch_size: Windows a batch at most.
        """
        windows = fixed_windows(self.dataset, self.max_length)
        # Points are numbered in the order of the rows, so each window scores a run of them.
        last = self._point[windows.start + windows.length]
        wanted = np.flatnonzero((last >= first) & (last - windows.scored + 1 < stop))
        for start in range(0, len(wanted), batch_size):
            yield self._batch(windows.take(wanted[start : start + batch_size]), within=(first, stop))

    def held_out(self, split: Split) -> int:
        """Events of a split; those without a history before them are not judged."""
        return len(self.dataset.rows(split))

    def evaluation_batches(self, split: Split, batch_size: int) -> Iterator[EvaluationBatch]:
        """The held-out events of a split in a fixed order: short histories first, then by user.

        An event without any history before it is left out: nothing can be said about it.

        Args:
            split: ``validation`` or ``test``.
            batch_size: Events a batch.
        """
        rows = self.dataset.rows(split)
        users = self.dataset.user[rows].astype(np.int64)
        history = rows - self.dataset.offsets[users]
        order = np.argsort(np.minimum(history, self.max_length), kind="stable")
        order = order[history[order] > 0]
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            yield self._evaluation_batch(rows[chosen], users[chosen], history[chosen])

    def calibration(self, count: int, seed: int) -> list[Feed]:
        """Feeds ``items`` ``(B, length)`` and ``length`` ``(B,)`` from ``count`` training histories at most.

        They end at a random event, so that short and long ones occur; no validation or test event is among them.
        """
        random = np.random.default_rng(seed)
        rows = np.flatnonzero(self._point >= 0)
        rows = random.permutation(rows)[:count]
        history = rows - self.dataset.offsets[self.dataset.user[rows]]
        return [
            self._feed(rows[start : start + 64], np.minimum(history[start : start + 64], self.max_length))
            for start in range(0, len(rows), 64)
        ]

    def inputs_of(self, feed: Feed) -> tuple[torch.Tensor, ...]:
        """``items`` and the last valid position of each history, in the flattened ``(batch * length)``."""
        items, length = feed["items"], feed["length"]
        last = np.arange(len(items)) * items.shape[1] + np.maximum(length, 1) - 1
        return torch.from_numpy(items), torch.from_numpy(last)

    def validation_metric(self) -> HeldOutNDCG:
        """NDCG@10, items of the history left out."""
        return HeldOutNDCG(k=CUTOFF)

    def judge(self, scorer: Scorer, batches: Iterator[EvaluationBatch]) -> Judgement:
        """Rank the whole catalogue for each held-out event."""
        found = ranking(scorer, batches, self.outcomes)
        return Judgement(found.users, found.targets, found.ndcg, quality(found))

    def baselines(self, settings: EvaluationSettings) -> dict[str, Baseline]:
        """Popularity, and item-kNN."""
        return {
            "popularity": Baseline("Popularity", popularity_scorer(self.dataset)),
            "item_knn": Baseline("Item-kNN", item_knn_scorer(self.dataset, settings.knn_neighbours)),
        }

    def beyond(self, earlier: PreparedDataset | None) -> HeldOutEvents:
        """The newest events; see :func:`components.tasks.held_out_events.held_out_events`."""
        return held_out_events(self.dataset, earlier)

    def learned_until(self, split: Split) -> int:
        """See :class:`Task`."""
        return int(self.dataset.timestamp[self.dataset.split < SPLITS.index(split)].max())

    def asked(self, split: Split, after: int) -> HeldOutEvents:
        """Each event with all that its user did before it."""
        return asked_events(self.dataset, split, after)

    def wording(self) -> Wording:
        """For people."""
        return Wording(
            title="Next-item recommendation",
            tags=("recommender-system", "sequential-recommendation"),
            summary="A recommender that predicts the next item of a user's history",
            use="recstill predict PACKAGE --history ID,ID,ID",
            tested=f"full ranking of {self.outcomes:,} items, items of the history left out",
            users="users",
            requests="test histories",
            limits="It knows the items of its vocabulary only; a history of none of them gets the most popular items. "
            "It repeats the leanings of its data, popularity first of all.",
        )

    def write_package_files(self, folder: Path) -> dict[str, Any]:
        """The catalogue."""
        return self.write_catalogue(
            folder,
            {
                "items": "item indices of vocabulary.parquet, oldest first, padded on the right with any index",
                "length": "events of each history that count",
                "scores": "one score an item, greater is better; items of the history are scored like any other",
            },
        )

    def golden_requests(self, count: int) -> list[Mapping[str, Any]]:
        """Histories that end at a random training event."""
        ids = self.outcome_ids
        return [
            {"history": [ids[item] for item in items[:length].tolist()], "k": CUTOFF, "exclude_seen": True}
            for feed in self.calibration(count, seed=0)
            for items, length in zip(feed["items"], feed["length"], strict=True)
        ]

    def _batch(
        self,
        windows: Windows,
        *,
        step_points: int | None = None,
        within: tuple[int, int] | None = None,
        drawn: np.ndarray | None = None,
    ) -> Batch:
        places = np.arange(int(windows.length.max()))
        read = places < windows.length[:, None]
        rows = np.where(read, windows.start[:, None] + places, 0)
        scored = read & (places >= (windows.length - windows.scored)[:, None])
        valid = np.flatnonzero(scored)
        following = rows.reshape(-1)[valid] + 1
        points = self._point[following]
        if within is not None or drawn is not None:
            chosen = np.ones(len(points), bool) if drawn is None else drawn[following]
            if within is not None:
                chosen &= (points >= within[0]) & (points < within[1])
            valid, following, points = valid[chosen], following[chosen], points[chosen]
        return Batch(
            inputs=(torch.from_numpy(self._item[rows] * read), torch.from_numpy(valid)),
            targets=torch.from_numpy(self._item[following]),
            points=torch.from_numpy(points),
            step_points=len(valid) if step_points is None else step_points,
        )

    def _evaluation_batch(self, rows: np.ndarray, users: np.ndarray, history: np.ndarray) -> EvaluationBatch:
        feed = self._feed(rows, np.minimum(history, self.max_length))
        seen_row = np.repeat(np.arange(len(rows)), history)
        place = np.arange(len(seen_row)) - np.repeat(np.cumsum(history) - history, history)
        seen_item = self._item[(rows - history)[seen_row] + place]
        return EvaluationBatch(
            inputs=self.inputs_of(feed),
            feed=feed,
            targets=torch.from_numpy(self._item[rows]),
            users=torch.from_numpy(users),
            seen=(torch.from_numpy(seen_row), torch.from_numpy(seen_item)),
            padded=("items",),
        )

    def _feed(self, rows: np.ndarray, length: np.ndarray) -> Feed:
        """The ``length`` events before each row."""
        places = np.arange(int(length.max()))
        read = places < length[:, None]
        source = np.where(read, (rows - length)[:, None] + places, 0)
        return {"items": self._item[source] * read, "length": length.astype(np.int64)}


class TrainingBatches(Sequence[Batch]):
    """One epoch's batches, each made when it is asked for.

    Several devices divide every step among them, so that all take the same number of steps and a step holds the
    same points on any number of devices.
    """

    def __init__(
        self,
        task: NextItem,
        windows: Windows,
        members: list[np.ndarray],
        rank: int,
        world: int,
        *,
        drawn: np.ndarray | None = None,
    ) -> None:
        self._task, self._windows, self._members = task, windows, members
        self._rank, self._world, self._drawn = rank, world, drawn
        self._before = None if drawn is None else np.concatenate([[0], np.cumsum(drawn)])

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]
        windows = self._windows.take(self._members[index])
        step_points = self._points_of(windows)
        share = windows.take(np.arange(self._rank, len(windows.start), self._world))
        if len(share.start) == 0:
            # Nothing is left for this device, but it has to take the step with the others.
            share = windows.take(np.arange(1))._replace(scored=np.zeros(1, dtype=np.int64))
        return self._task._batch(share, step_points=step_points, drawn=self._drawn)

    def _points_of(self, windows: Windows) -> int:
        """Points of whole windows that are learned from in this epoch."""
        if self._before is None:
            return int(windows.scored.sum())
        last = windows.start + windows.length + 1
        return int((self._before[last] - self._before[last - windows.scored]).sum())


def _bucketed(length: np.ndarray, positions: int, random: np.random.Generator) -> list[np.ndarray]:
    """Windows of like length together, at most ``positions`` padded positions a batch, in random order."""
    # Noise on the length: windows of one length do not always meet the same others.
    order = np.argsort(length + random.random(len(length)) * 4, kind="stable")
    longest = np.maximum.accumulate(length[order])
    batches, start = [], 0
    while start < len(order):
        candidates = longest[start : start + positions]  # a window has at least one position
        sizes = candidates * np.arange(1, len(candidates) + 1)
        stop = start + max(1, int(np.searchsorted(sizes, positions, side="right")))
        batches.append(order[start:stop])
        start = stop
    return [batches[number] for number in random.permutation(len(batches))]
