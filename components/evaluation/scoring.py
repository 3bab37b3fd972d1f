"""Rankings of the whole catalogue by any contender, whatever runs it: torch, ONNX Runtime, or a count."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from components.evaluation.onnx_session import new_session
from components.networks.contract import PredictionNetwork
from components.tasks.batch import EvaluationBatch
from components.tasks.ranking import MRR, NDCG, CatalogueCoverage, Recall, ndcg_of, ranks_of

CUTOFF = 10
Scorer = Callable[[EvaluationBatch], torch.Tensor]
"""From a batch to scores ``(batch, K)``."""


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


def network_scorer(network: PredictionNetwork) -> Scorer:
    """Scores of a torch network, which is put into evaluation mode."""
    network.eval()
    return lambda batch: network(*batch.inputs)


def onnx_scorer(path: Path) -> Scorer:
    """Scores of an ONNX file as it is served.

    Raises:
        IntegrityError: ONNX Runtime cannot load it.
    """
    session = new_session(path)

    def scores(batch: EvaluationBatch) -> torch.Tensor:
        # One history at a time, as it is served: activations that are quantized on the fly share one scale a batch, so
        # that the scores of one history would depend on the others.
        items, lengths = batch.feed["items"], batch.feed["length"]
        rows = [
            session.run(["scores"], {"items": items[row : row + 1, :length], "length": lengths[row : row + 1]})[0]
            for row, length in enumerate(lengths)
        ]
        return torch.from_numpy(np.concatenate(rows))

    return scores
