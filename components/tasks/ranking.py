"""Quality of a ranking of the whole catalogue, from the rank of the one item that was held out.

NDCG, recall and reciprocal rank with a single relevant item depend on its rank alone (Järvelin & Kekäläinen 2002;
Krichene & Rendle, "On Sampled Metrics for Item Recommendation", 2020), so no list is ever sorted for them.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torchmetrics import Metric

from components.errors import DataError

Seen = tuple[torch.Tensor, torch.Tensor]


def ranks_of(scores: torch.Tensor, targets: torch.Tensor, seen: Seen | None = None) -> torch.Tensor:
    """Rank of each target among all outcomes, from 0.

    The rank is the number of outcomes with a greater score. Of outcomes with the same score the one with the lower
    index comes first, so that a constant score is not taken for a good one.

    Args:
        scores: ``(B, K)``.
        targets: ``(B,)`` int64.
        seen: Rows and outcomes, two int64 tensors of the same size, that are left out of the ranking. A target
            is ranked even when it is among them.

    Returns:
        ``(B,)`` int64.

    Raises:
        DataError: A score is not a number.
    """
    if torch.isnan(scores).any():
        raise DataError("a score is not a number (NaN): it has no rank", "Check the weights and the exported graph.")
    of_target = scores.gather(1, targets.unsqueeze(1))
    before = scores > of_target
    ties = scores == of_target
    if int(ties.sum()) > len(targets):
        lower = torch.arange(scores.shape[1], device=scores.device) < targets.unsqueeze(1)
        before |= ties & lower
    if seen is not None:
        before[seen] = False
    return before.sum(1)


def ndcg_of(ranks: torch.Tensor, k: int) -> torch.Tensor:
    """``1 / log2(rank + 2)`` within the first ``k``, else 0; ``(B,)`` float64."""
    return torch.where(ranks < k, 1.0 / torch.log2(ranks.double() + 2.0), 0.0)


def recall_of(ranks: torch.Tensor, k: int) -> torch.Tensor:
    """1 within the first ``k``, else 0; ``(B,)`` float64."""
    return (ranks < k).double()


def reciprocal_rank_of(ranks: torch.Tensor, k: int | None = None) -> torch.Tensor:
    """``1 / (rank + 1)``, 0 beyond the first ``k`` when it is given; ``(B,)`` float64."""
    reciprocal = 1.0 / (ranks.double() + 1.0)
    return reciprocal if k is None else torch.where(ranks < k, reciprocal, 0.0)


class _MeanOfRanks(Metric):
    """Mean over events of a value that depends on the rank of the target."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    total: torch.Tensor
    events: torch.Tensor

    def __init__(self, k: int | None, **settings: Any) -> None:
        super().__init__(**settings)
        self.k = k
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("events", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @abstractmethod
    def values(self, ranks: torch.Tensor) -> torch.Tensor:
        """``(B,)`` float64, the value of each event."""

    def update(self, scores: torch.Tensor, targets: torch.Tensor, seen: Seen | None = None) -> None:
        """Take in ``scores`` ``(B, K)`` and ``targets`` ``(B,)``, see :func:`ranks_of`."""
        self._add(ranks_of(scores, targets, seen))

    def update_ranks(self, ranks: torch.Tensor) -> None:
        """Take in ``(B,)`` ranks that are known already."""
        # What torchmetrics does around `update`: a result that was computed before is out of date.
        self._computed = None
        self._update_count += 1
        self._add(ranks)

    def _add(self, ranks: torch.Tensor) -> None:
        self.total += self.values(ranks).sum()
        self.events += len(ranks)

    def compute(self) -> torch.Tensor:
        """The mean, float64; 0 without any event."""
        return self.total / self.events.clamp(min=1)


class NDCG(_MeanOfRanks):
    """Normalised discounted cumulative gain within the first ``k``."""

    def __init__(self, k: int = 10, **settings: Any) -> None:
        super().__init__(k, **settings)

    def values(self, ranks: torch.Tensor) -> torch.Tensor:
        """See :func:`ndcg_of`."""
        assert self.k is not None
        return ndcg_of(ranks, self.k)


class Recall(_MeanOfRanks):
    """Share of events whose target is within the first ``k``."""

    def __init__(self, k: int = 10, **settings: Any) -> None:
        super().__init__(k, **settings)

    def values(self, ranks: torch.Tensor) -> torch.Tensor:
        """See :func:`recall_of`."""
        assert self.k is not None
        return recall_of(ranks, self.k)


class MRR(_MeanOfRanks):
    """Mean reciprocal rank, over the whole ranking or within the first ``k``."""

    def __init__(self, k: int | None = None, **settings: Any) -> None:
        super().__init__(k, **settings)

    def values(self, ranks: torch.Tensor) -> torch.Tensor:
        """See :func:`reciprocal_rank_of`."""
        return reciprocal_rank_of(ranks, self.k)


class CatalogueCoverage(Metric):
    """Share of the catalogue that is recommended to anyone within the first ``k``."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    recommended: torch.Tensor

    def __init__(self, outcomes: int, k: int = 10, **settings: Any) -> None:
        super().__init__(**settings)
        self.k = min(k, outcomes)
        self.add_state("recommended", torch.zeros(outcomes, dtype=torch.bool), dist_reduce_fx="max")

    def update(self, scores: torch.Tensor, seen: Seen | None = None) -> None:
        """Take in ``scores`` ``(B, K)``; ``seen`` as in :func:`ranks_of`."""
        if seen is not None:
            scores = scores.clone()
            scores[seen] = -torch.inf
        best = scores.topk(self.k, dim=1)
        # An outcome that was left out is no recommendation, even when nothing else is there.
        self.recommended[best.indices[best.values > -torch.inf]] = True

    def compute(self) -> torch.Tensor:
        """The share, from 0 to 1."""
        return self.recommended.double().mean()
