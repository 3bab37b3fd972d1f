"""Divergence between standardised logits: which outcome before which and by how much, whatever the scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from components.training.losses.distributions import relative_entropy
from components.training.losses.teacher_list import best_of

if TYPE_CHECKING:
    from components.soft_labels.labels import SoftLabels

_SMALLEST = 1e-7


def standardised(logits: torch.Tensor) -> torch.Tensor:
    """``(z - mean(z)) / std(z)`` along the rows, std with the divisor n - 1; ``(N, n)`` to ``(N, n)``."""
    return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + _SMALLEST)


def standardised_divergence(
    logits: torch.Tensor, labels: SoftLabels, temperature: float, listed: int | None = None
) -> torch.Tensor:
    """``T**2 * KL(softmax(Z(t) / T) || softmax(Z(s) / T))``, Z the z-score over the outcomes that are compared.

    Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024, algorithm 1. A z-score does not change
    when a constant is added, so log-probabilities serve as logits. Of dense labels all K outcomes are compared, as in
    the paper. Of a list only its members are: the mean and the deviation over all K cannot be known from it.

    Args:
        logits: ``(N, K)``.
        labels: At temperature 1.
        temperature: T, of both standardised distributions.
        listed: Outcomes of the list that are in order; None: all that are stored.

    Returns:
        ``(N,)``.
    """
    if labels.ids is None:
        teacher, student = labels.log_probs, logits
    else:
        ids, teacher = best_of(labels, listed or labels.ids.shape[1])
        student = logits.gather(1, ids)
    teacher = standardised(teacher.to(logits.dtype)) / temperature
    student = standardised(student) / temperature
    compared = relative_entropy(teacher.log_softmax(1), student.log_softmax(1))
    return temperature**2 * compared.sum(1)
