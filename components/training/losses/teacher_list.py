"""What losses over single outcomes ask of cached labels: the teacher's best outcomes, and its opinion of any."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from components.soft_labels.labels import SoftLabels


def best_of(labels: SoftLabels, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The teacher's most probable outcomes, best first.

    Args:
        labels: Dense, ``top_k_tail``, or the head of ``top_k_sampled``: lists are stored best first.
        count: How many; no more than are stored in order.

    Returns:
        Ids ``(N, count)`` int64, and their log-probabilities ``(N, count)``.
    """
    if labels.ids is None:
        log_probs, ids = labels.log_probs.topk(count, dim=1)
        return ids, log_probs
    return labels.ids[:, :count], labels.log_probs[:, :count]


def log_probs_at(labels: SoftLabels, ids: torch.Tensor) -> torch.Tensor:
    """The teacher's log-probabilities of any outcomes.

    Of an outcome outside the list only the mass t that all m = K - k of them have together is known: the distribution
    of maximum entropy gives each ``t / m``, as :meth:`SoftLabels.at_temperature` does.

    Args:
        labels: Dense, or k outcomes and a tail.
        ids: ``(N, c)`` int64.

    Returns:
        ``(N, c)`` float32.
    """
    if labels.ids is None:
        return labels.log_probs.gather(1, ids)
    ordered, order = labels.ids.sort(dim=1)
    place = torch.searchsorted(ordered, ids.contiguous()).clamp(max=ordered.shape[1] - 1)
    stored = ordered.gather(1, place) == ids
    known = labels.log_probs.gather(1, order.gather(1, place))
    return torch.where(stored, known, log_each_other(labels).unsqueeze(1))


def log_each_other(labels: SoftLabels) -> torch.Tensor:
    """Log-probability ``(N,)`` of each single outcome outside the list: the tail, spread evenly."""
    assert labels.ids is not None
    others = labels.outcomes - labels.ids.shape[1]
    if labels.tail is None or others < 1:
        return labels.log_probs.new_full((len(labels.ids),), -torch.inf)
    return labels.tail - math.log(others)


def is_in(ids: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """Which of ``(N, a)`` ids are among ``(N, b)`` others of the same row, ``(N, a)`` bool."""
    ordered = among.sort(dim=1).values
    place = torch.searchsorted(ordered, ids.contiguous()).clamp(max=ordered.shape[1] - 1)
    return ordered.gather(1, place) == ids
