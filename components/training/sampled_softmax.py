"""Cross entropy over a sample of a catalogue that is too large for the full softmax."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

_CHUNK = 2048
# Popularity to this power: between uniform, which never meets a serious rival of the target, and popularity itself.
_POPULARITY_POWER = 0.75


class NegativeSampler:
    """Draws items, with replacement, in proportion to ``(events + 1) ** 0.75`` (Mikolov et al. 2013, section 2.2).

    Args:
        counts: ``(K,)`` training events of each item.
    """

    def __init__(self, counts: np.ndarray) -> None:
        weight = (counts.astype(np.float64) + 1.0) ** _POPULARITY_POWER
        self._cumulative = torch.from_numpy(np.cumsum(weight))
        self.log_probability = torch.from_numpy(np.log(weight / weight.sum())).float()
        """``(K,)`` float32, log of the chance of each item in one draw."""

    def draw(self, count: int) -> torch.Tensor:
        """``(count,)`` int64 items, from torch's generator."""
        places = torch.rand(count, dtype=torch.float64) * self._cumulative[-1]
        return torch.searchsorted(self._cumulative, places, right=True).clamp_(max=len(self._cumulative) - 1)


def sampled_softmax(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    negatives: torch.Tensor,
    log_probability: torch.Tensor,
) -> torch.Tensor:
    """Cross entropy with the partition sum estimated from S shared negatives.

    A negative that was drawn with probability Q counts ``1 / (S * Q)`` times, that is, ``log(S * Q)`` is taken from
    its logit (the logQ correction: Bengio & Senécal 2008; Yi et al. 2019), and a negative that is the target itself is
    left out. The estimate of the sum over all others is then unbiased, and the loss tends to the full cross entropy.

    Args:
        hidden: ``(N, dim)``.
        weight: ``(K, dim)``, the head.
        targets: ``(N,)`` int64.
        negatives: ``(S,)`` int64, drawn with replacement.
        log_probability: ``(S,)``, log of the chance of each negative in one draw.

    Returns:
        ``(N,)``.
    """
    rivals = F.embedding(negatives, weight)
    correction = log_probability + float(np.log(len(negatives)))

    def losses(hidden: torch.Tensor, aims: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        aimed = (hidden * aims).sum(1, keepdim=True)
        logits = F.linear(hidden, rivals) - correction
        logits = logits.masked_fill(targets.unsqueeze(1) == negatives, -torch.inf)
        return torch.logsumexp(torch.cat([aimed, logits], dim=1), dim=1) - aimed.squeeze(1)

    parts = zip(hidden.split(_CHUNK), F.embedding(targets, weight).split(_CHUNK), targets.split(_CHUNK), strict=True)
    # Computed once more for the gradient: (N, S) logits are not kept.
    return torch.cat([checkpoint(losses, *part, use_reentrant=False) for part in parts])
