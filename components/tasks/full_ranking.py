"""A contender's ranking of the whole catalogue for every held-out event, and its figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from components.tasks.batch import EvaluationBatch, Scorer
from components.tasks.contract import Strata
from components.tasks.ranking import MRR, NDCG, CatalogueCoverage, Recall, ndcg_of, ranks_of

CUTOFF = 10
STRATA = 5


class Ranking(NamedTuple):
    """Where a contender ranked each held-out item, sorted by user and then by time.

    Attributes:
        users: ``(targets,)`` int64.
        targets: ``(targets,)`` int64, the item that was held out.
        ranks: ``(targets,)`` int64, from 0, with items of the history left out of the ranking.
        ranks_seen_kept: The same with all items ranked.
        coverage: Share of the catalogue in anyone's first ten, items of the history left out.
        coverage_seen_kept: The same with all items ranked.
    """

    users: np.ndarray
    targets: np.ndarray
    ranks: np.ndarray
    ranks_seen_kept: np.ndarray
    coverage: float
    coverage_seen_kept: float

    @property
    def ndcg(self) -> np.ndarray:
        """NDCG@10 of each target, items of the history left out, ``(targets,)``."""
        return ndcg_of(torch.from_numpy(self.ranks), CUTOFF).numpy()


class HeldOutNDCG(NDCG):
    """NDCG@10 of batches of held-out events, items of the history left out."""

    def update(self, scores: torch.Tensor, batch: Any) -> None:  # type: ignore[override]
        """Take in ``scores`` ``(B, K)`` of an :class:`EvaluationBatch`."""
        super().update(scores, batch.targets, batch.seen)


def ranking(scorer: Scorer, batches: Iterable[EvaluationBatch], outcomes: int) -> Ranking:
    """Rank every held-out item in one pass; at most one batch of scores is in memory.

    Args:
        scorer: The contender.
        batches: Of ``task.evaluation_batches``; their order does not matter.
        outcomes: K, the size of the catalogue.

    Raises:
        DataError: A score is not a number.
    """
    left_out, kept = CatalogueCoverage(outcomes, CUTOFF), CatalogueCoverage(outcomes, CUTOFF)
    columns: list[tuple[torch.Tensor, ...]] = []
    for batch in batches:
        assert batch.seen is not None
        with torch.inference_mode():
            scores = scorer(batch)
        ranks = ranks_of(scores, batch.targets, batch.seen), ranks_of(scores, batch.targets)
        left_out.update(scores, batch.seen)
        kept.update(scores)
        history = torch.bincount(batch.seen[0], minlength=len(batch.targets))
        columns.append((batch.users, history, batch.targets, *ranks))
    users, lengths, targets, ranks_left_out, ranks_kept = (
        torch.cat(column).numpy() for column in zip(*columns, strict=True)
    )
    order = np.lexsort((lengths, users))
    return Ranking(
        users=users[order],
        targets=targets[order],
        ranks=ranks_left_out[order],
        ranks_seen_kept=ranks_kept[order],
        coverage=float(left_out.compute()),
        coverage_seen_kept=float(kept.compute()),
    )


def quality(found: Ranking) -> dict[str, float]:
    """The figures of a ranking; names that end in ``_seen_kept`` count items of the history as any other."""
    figures = {"coverage10": found.coverage, "coverage10_seen_kept": found.coverage_seen_kept}
    for suffix, ranks in (("", found.ranks), ("_seen_kept", found.ranks_seen_kept)):
        for name, metric in (("ndcg10", NDCG(CUTOFF)), ("recall10", Recall(CUTOFF)), ("mrr", MRR())):
            metric.update_ranks(torch.from_numpy(ranks))
            figures[name + suffix] = float(metric.compute())
    return figures


def popularity_strata(targets: np.ndarray, train_counts: np.ndarray) -> Strata:
    """Targets by how often they occur in training, in ranges that hold about as many targets each.

    Args:
        targets: ``(T,)`` held-out items.
        train_counts: ``(items,)`` training events of each item.
    """
    count = train_counts[targets]
    edges = np.unique(np.quantile(count, np.linspace(0, 1, STRATA + 1)[1:-1], method="lower"))
    # A value of a training count is never divided between two ranges.
    _, bucket = np.unique(np.searchsorted(edges, count, side="left"), return_inverse=True)
    within = [count[bucket == number] for number in range(int(bucket.max()) + 1)]
    labels = [f"{part.min()}" if part.min() == part.max() else f"{part.min()}-{part.max()}" for part in within]
    return Strata(
        "Popularity of the target",
        "From rare items on the left to popular ones on the right.",
        "training events of the target",
        bucket.astype(np.int64),
        tuple(labels),
    )
