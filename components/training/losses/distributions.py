"""Cross entropy with what was observed, and divergence from the teacher's cached distribution.

From logits ``(N, K)`` to one value a prediction point ``(N,)``. Training itself goes through
:mod:`components.training.objectives`, which gives the same values with their gradients in one pass over a few rows at
a time; these are what it is checked against, and what a network without a linear head uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from components.soft_labels.labels import SoftLabels


class PairWeights(NamedTuple):
    """What the hard and the soft term weigh, and the temperature of the soft one.

    Attributes:
        hard: Of the cross entropy with what was observed.
        soft: Of the divergence from the teacher, before the factor ``temperature ** 2``.
        temperature: T of both distributions in the soft term.
    """

    hard: float
    soft: float
    temperature: float = 1.0


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, smoothing: float = 0.0) -> torch.Tensor:
    """``-sum_j y_j log softmax(logits)_j`` with ``y = (1 - smoothing) * onehot(target) + smoothing / K``.

    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", 2016, section 7.

    Args:
        logits: ``(N, K)``.
        targets: ``(N,)`` int64; ``(N, M)`` of which each has an equal share of its point, -1 for none: the multinomial
            likelihood of Liang et al., "Variational Autoencoders for Collaborative Filtering", 2018, section 2.2.
        smoothing: Share of the label that is spread over all outcomes.

    Returns:
        ``(N,)``.
    """
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    ids, shares = observed(targets, logits.dtype)
    log_probs = torch.log_softmax(logits, dim=1)
    aimed = (log_probs.gather(1, ids) * shares).sum(1)
    return -(1 - smoothing) * aimed - smoothing * log_probs.mean(1)


def observed(targets: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Outcomes ``(N, M)`` int64, and the share of its point that each has, ``(N, M)``.

    Args:
        targets: ``(N,)``, or ``(N, M)`` with -1 for none.
        dtype: Of the shares.
    """
    if targets.ndim == 1:
        return targets.unsqueeze(1), torch.ones(len(targets), 1, dtype=dtype, device=targets.device)
    there = targets >= 0
    return targets.clamp(min=0), there.to(dtype) / there.sum(1, keepdim=True).clamp(min=1)


def divergence(logits: torch.Tensor, labels: SoftLabels, temperature: float = 1.0) -> torch.Tensor:
    """``KL(teacher || softmax(logits / temperature))`` over what the cache keeps of the teacher.

    Of dense labels all K outcomes are compared. Otherwise k + 1 are: the k that are stored, and all others together as
    one. (Renormalising the k instead would teach the student that nothing else ever happens; Anshumann et al.,
    "Sparse Logit Sampling", ACL 2025.)

    Args:
        logits: ``(N, K)``.
        labels: The teacher's distribution at this temperature.
        temperature: Divides the logits.

    Returns:
        ``(N,)``, without the factor ``temperature**2``.
    """
    scaled = logits / temperature
    known = labels.log_probs.to(scaled.dtype)
    if labels.ids is None:
        return relative_entropy(known, torch.log_softmax(scaled, dim=1)).sum(1)
    total = torch.logsumexp(scaled, dim=1, keepdim=True)
    value = relative_entropy(known, scaled.gather(1, labels.ids) - total).sum(1)
    if labels.tail is None or logits.shape[1] <= labels.ids.shape[1]:
        return value
    # The mass outside the top k from its own logits: 1 - (mass of the top k) would cancel to 0, and its log to -inf.
    tail = torch.logsumexp(scaled.scatter(1, labels.ids, -torch.inf), dim=1) - total.squeeze(1)
    return value + relative_entropy(labels.tail.to(scaled.dtype), tail)


def distillation(
    logits: torch.Tensor, targets: torch.Tensor, labels: SoftLabels, weights: PairWeights, smoothing: float = 0.0
) -> torch.Tensor:
    """``hard * CE + soft * T**2 * KL``.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.

    Args:
        logits: ``(N, K)``.
        targets: See :func:`cross_entropy`.
        labels: The teacher's distribution at ``weights.temperature``.
        weights: Of both terms, and the temperature.
        smoothing: Label smoothing of the hard term.

    Returns:
        ``(N,)``.
    """
    hard = cross_entropy(logits, targets, smoothing)
    soft = divergence(logits, labels, weights.temperature)
    return weights.hard * hard + weights.soft * weights.temperature**2 * soft


def relative_entropy(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """``p * (log p - log q)``, 0 where p is 0."""
    nothing = log_p == -torch.inf
    log_p = log_p.masked_fill(nothing, 0.0)
    return (log_p.exp() * (log_p - log_q.masked_fill(nothing, 0.0))).masked_fill(nothing, 0.0)
