"""Task ``top_n``: what a user has taken so far, in whatever order, tells what else the user would take."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from components.data.dataset import PreparedDataset, Split
from components.data.events import read_ingested
from components.data.preparing import prepare, summary, write_dataset
from components.errors import SettingsError
from components.settings.base import Settings
from components.settings.evaluation import EvaluationSettings
from components.settings.prepare import PrepareSettings
from components.tasks.batch import ITEM_SETS, Batch, EvaluationBatch, Feed, Scorer
from components.tasks.catalogue import CatalogueTask
from components.tasks.contract import Baseline, Judgement, Measure, Wording
from components.tasks.full_ranking import ranking
from components.tasks.held_out_events import HeldOutEvents, held_out_events
from components.tasks.item_baselines import item_knn_scorer, popularity_scorer
from components.tasks.item_sets import ItemSets
from components.tasks.ranking import Recall, ndcg_of, recall_of, reciprocal_rank_of

CUTOFF = 50
"""Items that count: what retrieval hands on is ranked again."""
_FIGURES: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "recall50": ("Recall@50", lambda ranks: recall_of(ranks, CUTOFF)),
    "recall10": ("Recall@10", lambda ranks: recall_of(ranks, 10)),
    "ndcg50": ("NDCG@50", lambda ranks: ndcg_of(ranks, CUTOFF)),
    "ndcg10": ("NDCG@10", lambda ranks: ndcg_of(ranks, 10)),
    "mrr": ("MRR", reciprocal_rank_of),
}
_GOLDEN_ITEMS = 8
_SPREAD = 0.7  # Users within a factor of two or so of one another's number of items make a batch.


class TopN(CatalogueTask):
    """A point is a user, K the catalogue.

    The inputs are ``items`` ``(B, length)`` int64, the user's different training items padded on the right with item 0,
    and ``length`` ``(B,)`` int64. When it is judged by what was taken, a network sees a part of the items and is asked
    for the rest; a soft label is made from all of them and gives none of them a chance, and a student sees as much.

    Attributes:
        dataset: Where the events come from; only who took what, and the split, counts.
        max_length: Items of a user that a network sees, the newest ones; 0: all.
    """

    name = "top_n"
    loss = "softmax"
    measures: ClassVar[tuple[Measure, ...]] = (
        *(Measure(key, title) for key, (title, _) in _FIGURES.items()),
        Measure("coverage10", "coverage", percent=True),
    )
    best_of = CUTOFF

    @classmethod
    def prepare(cls, ingested: Path, folder: Path, settings: Settings) -> list[str]:
        """K-core, vocabulary and split; see :class:`Task`."""
        if not isinstance(settings, PrepareSettings):
            raise SettingsError("`prepare` is not for events of users and items", "Set `prepare.split` alone.")
        if settings.item_features:
            raise SettingsError("no network of the task `top_n` reads `prepare.item_features`", "Take it out.")
        events, items, source_digest = read_ingested(ingested)
        prepared = prepare(events, items, settings, source_digest)
        # Of the same events another task would have a point a position.
        prepared.record["points"] = prepared.events.filter(split=0)["user"].n_unique()
        write_dataset(folder, prepared)
        return summary(prepared.record)

    def __init__(self, dataset: PreparedDataset, max_length: int = 0) -> None:
        self.dataset, self.max_length = dataset, max_length
        training = dataset.split == 0
        self._sets = ItemSets(dataset.user[training], dataset.item[training], dataset.users, max_length)
        self._users = np.flatnonzero(self._sets.sizes)

    @property
    def sizes(self) -> dict[str, Any]:
        """That the inputs are items of users."""
        return {ITEM_SETS: True}

    @property
    def points(self) -> int:
        """Users with a training item."""
        return len(self._users)

    def training_batches(
        self, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world: int = 1
    ) -> TrainingBatches:
        """One epoch: every user once, ``batch_size`` of them a step, with about as many items each.

        Which of a user's items are asked for is drawn anew: each of them with a chance that is itself drawn, up to a
        half, and one at least of two or more. The others are what the network sees, and are left out of the answer.
        """
        random = np.random.default_rng([seed, epoch])
        length = np.log(self._sets.sizes[self._users]) + random.random(self.points) * _SPREAD
        order = np.argsort(length, kind="stable")
        members = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        steps = [members[number] for number in random.permutation(len(members))]
        return TrainingBatches(self, steps, (seed, epoch), rank, world)

    def scoring_batches(self, first: int, stop: int, batch_size: int) -> Iterator[Batch]:
        """The points ``first`` to ``stop - 1``, each with all training items of the user."""
        for start in range(first, stop, batch_size):
            points = np.arange(start, min(start + batch_size, stop))
            feed = self._sets.feed(self._users[points])
            yield Batch(
                inputs=self.inputs_of(feed),
                targets=torch.full((len(points), 1), -1),
                points=torch.from_numpy(points),
                step_points=len(points),
                known=_tensors(*self._sets.pairs(self._users[points])),
            )

    def drawn(self, points: np.ndarray, random: np.random.Generator, step_points: int) -> Batch:
        """Some points, with a part of each user's items to see and the rest to be asked for."""
        row, item = self._sets.pairs(self._users[points])
        size = np.bincount(row, minlength=len(points))
        asked = random.random(len(row)) < 0.5 * random.random(len(points))[row]
        # One at least of each: the one with the least draw is asked for, the one with the greatest is not.
        draw = random.random(len(row))
        order = np.lexsort((draw, row))
        ends = np.cumsum(size)
        asked[order[ends - size]] = True
        asked[order[(ends - 1)[size > 1]]] = False
        alone = (size == 1)[row]
        shown = ~asked | alone
        left_out = shown & ~alone
        targets = ItemSets.padded(row[asked], item[asked], len(points), fill=-1)[0]
        items, length = ItemSets.padded(row[shown], item[shown], len(points), fill=0)
        return Batch(
            inputs=(torch.from_numpy(items), torch.from_numpy(length)),
            targets=torch.from_numpy(targets),
            points=torch.from_numpy(points),
            step_points=step_points,
            left_out=_tensors(row[left_out], item[left_out]),
            known=_tensors(row, item),
            whole=self.inputs_of(self._sets.feed(self._users[points])),
        )

    def calibration(self, count: int, seed: int) -> list[Feed]:
        """Feeds ``items`` and ``length`` of ``count`` users at most."""
        chosen = np.random.default_rng(seed).permutation(self._users)[:count]
        return [self._sets.feed(chosen[start : start + 64]) for start in range(0, len(chosen), 64)]

    def inputs_of(self, feed: Feed) -> tuple[torch.Tensor, ...]:
        """``items`` and ``length``."""
        return torch.from_numpy(feed["items"]), torch.from_numpy(feed["length"])

    def held_out(self, split: Split) -> int:
        """Events of a split; those of users without a training item are not judged."""
        return len(self.dataset.rows(split))

    def evaluation_batches(self, split: Split, batch_size: int) -> Iterator[EvaluationBatch]:
        """The held-out events of a split, users with few items first, each to be found among what was not taken before.

        A network sees the training items. Of test events the user's validation items are left out of the ranking too,
        as in the papers, whose models have not learned from them either.
        """
        rows = self.dataset.rows(split)
        rows = rows[self._sets.sizes[self.dataset.user[rows]] > 0]
        rows = rows[np.argsort(self._sets.sizes[self.dataset.user[rows]], kind="stable")]
        known = self.dataset.split < (1 if split == "validation" else 2)
        before = ItemSets(self.dataset.user[known], self.dataset.item[known], self.dataset.users)
        for start in range(0, len(rows), batch_size):
            chosen = rows[start : start + batch_size]
            users = self.dataset.user[chosen].astype(np.int64)
            feed = self._sets.feed(users)
            yield EvaluationBatch(
                inputs=self.inputs_of(feed),
                feed=feed,
                targets=torch.from_numpy(self.dataset.item[chosen].astype(np.int64)),
                users=torch.from_numpy(users),
                seen=_tensors(*before.pairs(users)),
                padded=("items",),
                known=_tensors(*self._sets.pairs(users)),
            )

    def validation_metric(self) -> HeldOutRecall:
        """Recall@50, items of the user left out."""
        return HeldOutRecall(CUTOFF)

    def judge(self, scorer: Scorer, batches: Iterator[EvaluationBatch]) -> Judgement:
        """Rank the whole catalogue for each held-out event."""
        found = ranking(scorer, batches, self.outcomes)
        ranks = torch.from_numpy(found.ranks)
        figures = {key: float(values(ranks).mean()) for key, (_, values) in _FIGURES.items()}
        figures["coverage10"] = found.coverage
        return Judgement(found.users, found.targets, recall_of(ranks, CUTOFF).numpy(), figures)

    def baselines(self, settings: EvaluationSettings) -> dict[str, Baseline]:
        """Popularity, and item-kNN."""
        neighbours = item_knn_scorer(self.dataset, settings.knn_neighbours)
        return {
            "popularity": Baseline("Popularity", popularity_scorer(self.dataset)),
            "item_knn": Baseline("Item-kNN", lambda batch: neighbours(_as_fed(batch))),
        }

    def beyond(self, earlier: PreparedDataset | None) -> HeldOutEvents:
        """The test events; see :func:`components.tasks.held_out_events.held_out_events`."""
        return held_out_events(self.dataset, earlier, HeldOutItems)

    def wording(self) -> Wording:
        """For people."""
        return Wording(
            title="Top-n recommendation",
            tags=("recommender-system", "collaborative-filtering"),
            summary="A recommender that finds items for whoever has taken some",
            use="recstill predict PACKAGE --history ID,ID,ID",
            tested=f"full ranking of {self.outcomes:,} items, items of the user left out",
            users="users",
            requests="test users",
            limits="It knows the items of its vocabulary only, and not in which order they were taken; whoever has "
            "taken none of them gets the most popular ones. It repeats the leanings of its data, popularity first.",
        )

    def write_package_files(self, folder: Path) -> dict[str, Any]:
        """The catalogue."""
        return self.write_catalogue(
            folder,
            {
                "items": "item indices of vocabulary.parquet in any order, padded on the right with any index",
                "length": "items of each row that count",
                "scores": "one score an item, greater is better; items of the row are scored like any other",
            },
        )

    def golden_requests(self, count: int) -> list[Mapping[str, Any]]:
        """Items drawn as often as training has them: nobody's own set goes into a package."""
        ids, random = self.outcome_ids, np.random.default_rng(0)
        chance = self.dataset.train_counts / self.dataset.train_counts.sum()
        most = min(_GOLDEN_ITEMS, int((chance > 0).sum()))
        return [
            {
                "history": [ids[item] for item in random.choice(len(ids), 1 + number % most, replace=False, p=chance)],
                "k": 10,
                "exclude_seen": True,
            }
            for number in range(count)
        ]


class HeldOutItems(HeldOutEvents):
    """Targets that count when they are among the first fifty."""

    cutoff = CUTOFF

    def worth(self, rank: int) -> float:
        """Recall@50."""
        return 1.0


class HeldOutRecall(Recall):
    """Recall of batches of held-out events, items of the user left out."""

    def update(self, scores: torch.Tensor, batch: Any) -> None:  # type: ignore[override]
        """Take in ``scores`` ``(B, K)`` of an :class:`EvaluationBatch`."""
        super().update(scores, batch.targets, batch.seen)


class TrainingBatches(Sequence[Batch]):
    """One epoch's batches, each made when it is asked for.

    Several devices divide the users of every step among them, and each draws for its own.
    """

    def __init__(self, task: TopN, steps: list[np.ndarray], seed: tuple[int, int], rank: int, world: int) -> None:
        self._task, self._steps, self._seed = task, steps, seed
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]
        points = self._steps[index]
        share = points[self._rank :: self._world]
        random = np.random.default_rng([*self._seed, index, self._rank])
        return self._task.drawn(share, random, len(points))


def _tensors(row: np.ndarray, item: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(row), torch.from_numpy(item)


def _as_fed(batch: EvaluationBatch) -> EvaluationBatch:
    """The same with what a network sees in the place of what was taken, for a scorer that reads the latter."""
    items, length = batch.feed["items"], batch.feed["length"]
    row, place = np.nonzero(np.arange(items.shape[1]) < length[:, None])
    return batch._replace(seen=_tensors(row, items[row, place]))
