"""Losses of one yes or no a row, as in task ``click``: from logits ``(N, 1)`` to ``(N,)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from components.soft_labels.labels import SoftLabels


def binary_cross_entropy(logits: torch.Tensor, targets: torch.Tensor, shift: float = 0.0) -> torch.Tensor:
    """``-y log sigmoid(z + s) - (1 - y) log sigmoid(-z - s)`` with y what was observed, 0 or 1.

    Where a share r of the rows with a no was kept, the odds of a yes are 1 / r times as great among those that are
    left: with s = -log r the logits stay those of all rows (He et al., "Practical Lessons from Predicting Clicks on Ads
    at Facebook", 2014, section 6.3, the other way round).

    Args:
        logits: ``(N, 1)``.
        targets: ``(N,)``, 0 or 1.
        shift: s.

    Returns:
        ``(N,)``.
    """
    student = logits.squeeze(1) + shift
    return F.binary_cross_entropy_with_logits(student, targets.to(student.dtype), reduction="none")


def soft_binary_cross_entropy(logits: torch.Tensor, labels: SoftLabels, temperature: float = 1.0) -> torch.Tensor:
    """``-q log sigmoid(z / T) - (1 - q) log sigmoid(-z / T)`` with q the teacher's probability of a yes at T.

    The binary case of Hinton, Vinyals and Dean 2015, section 2; it differs from the divergence by the entropy of q,
    which has no gradient.

    Args:
        logits: ``(N, 1)``.
        labels: Of codec ``logit``, at this temperature: ``(N, 2)`` log-probabilities of no and yes.
        temperature: T, divides the logits.

    Returns:
        ``(N,)``, without the factor ``temperature**2``.
    """
    student = logits.squeeze(1) / temperature
    return F.binary_cross_entropy_with_logits(student, labels.log_probs[:, 1].to(student.dtype).exp(), reduction="none")


def logit_squared_error(logits: torch.Tensor, labels: SoftLabels) -> torch.Tensor:
    """``(z - z')**2`` with z' the teacher's logit.

    Ba and Caruana, "Do Deep Nets Really Need to be Deep?", NeurIPS 2014, section 2.2; the limit of the soft cross
    entropy at a high temperature (Hinton, Vinyals and Dean 2015, section 2.1).

    Args:
        logits: ``(N, 1)``.
        labels: Of codec ``logit``, at temperature 1: the logit is ``log q - log(1 - q)``.

    Returns:
        ``(N,)``.
    """
    known = labels.log_probs.to(logits.dtype)
    return (logits.squeeze(1) - (known[:, 1] - known[:, 0])).square()
