"""Decoupled distillation: what the teacher thinks of the target, and of everything else, each with its own weight."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from components.training.losses.distributions import relative_entropy
from components.training.losses.teacher_list import log_probs_at

if TYPE_CHECKING:
    from components.soft_labels.labels import SoftLabels


def decoupled_divergence(
    logits: torch.Tensor,
    targets: torch.Tensor,
    labels: SoftLabels,
    *,
    alpha: float,
    beta: float,
    temperature: float = 1.0,
) -> torch.Tensor:
    """``T**2 * (alpha * TCKD + beta * NCKD)``.

    With teacher q and student p at temperature T, and t the observed outcome::

        TCKD = KL((q_t, 1 - q_t) || (p_t, 1 - p_t))
        NCKD = KL(q' || p'),    q'_j = q_j / (1 - q_t),  p'_j = p_j / (1 - p_t),  j != t

    so that ``KL(q || p) = TCKD + (1 - q_t) * NCKD``: there, a teacher that is sure of the target says little of the
    rest. Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, equations 5 to 7.

    Of a list, the outcomes outside it count together, as in :func:`divergence`; a target outside it has an even
    share of the tail.

    Args:
        logits: ``(N, K)``.
        targets: ``(N,)`` int64.
        labels: Dense, or k outcomes and a tail, at this temperature.
        alpha: Weight of the target's part.
        beta: Weight of the part of all others.
        temperature: T, divides the logits.

    Returns:
        ``(N,)``.
    """
    scaled = logits / temperature
    aim = targets.unsqueeze(1)
    log_q_target = log_probs_at(labels, aim).to(scaled.dtype)
    total = torch.logsumexp(scaled, dim=1, keepdim=True)
    others = scaled.scatter(1, aim, -torch.inf)
    log_p_target = scaled.gather(1, aim) - total
    log_p_others = torch.logsumexp(others, dim=1, keepdim=True)
    log_q = _others_of_teacher(labels, aim).to(scaled.dtype)
    log_q_others = torch.logsumexp(log_q, dim=1, keepdim=True)
    log_p = others if labels.ids is None else _listed_of_student(others, labels)
    of_target = relative_entropy(log_q_target, log_p_target) + relative_entropy(log_q_others, log_p_others - total)
    rest = relative_entropy(log_q - log_q_others, log_p - log_p_others)
    return temperature**2 * (alpha * of_target.squeeze(1) + beta * rest.sum(1))


def _others_of_teacher(labels: SoftLabels, aim: torch.Tensor) -> torch.Tensor:
    """Log-probabilities without the target's: ``(N, K)``, or the list and the tail ``(N, k + 1)``."""
    if labels.ids is None:
        return labels.log_probs.scatter(1, aim, -torch.inf)
    is_aim = labels.ids == aim
    tail = labels.tail
    outside = labels.outcomes - labels.ids.shape[1]
    if tail is None or outside < 1:
        tail = labels.log_probs.new_full((len(aim),), -torch.inf)
    else:
        # The target takes its even share out of a tail that it is in.
        left = math.log((outside - 1) / outside) if outside > 1 else -math.inf
        tail = torch.where(is_aim.any(1), tail, tail + left)
    return torch.cat([labels.log_probs.masked_fill(is_aim, -torch.inf), tail.unsqueeze(1)], dim=1)


def _listed_of_student(others: torch.Tensor, labels: SoftLabels) -> torch.Tensor:
    """Logits of the list, and the log of the sum over all outside it, the target nowhere: ``(N, k + 1)``."""
    assert labels.ids is not None
    outside = others.scatter(1, labels.ids, -torch.inf)
    # Where nothing is outside, a sum over nothing: its gradient would be NaN.
    empty = (outside == -torch.inf).all(1, keepdim=True)
    tail = torch.logsumexp(outside.masked_fill(empty, 0.0), dim=1, keepdim=True).masked_fill(empty, -torch.inf)
    return torch.cat([others.gather(1, labels.ids), tail], dim=1)
