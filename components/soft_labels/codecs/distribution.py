"""What codecs that keep a few labels need of a distribution: its k largest outcomes, and what the others weigh."""

from __future__ import annotations

import torch

from components.soft_labels.codecs.base import require_finite
from components.soft_labels.codecs.largest import largest

_LANES = 16


class Distribution:
    """``softmax(logits)`` of N rows, taken apart into the k largest outcomes of each and the others.

    Attributes:
        ids: ``(N, k)`` int64, the most probable outcomes, best first.
        log_probs: ``(N, k)``, natural logs of their probabilities.
        rest: ``(N,)``, the probability of all others together, summed by itself: 1 - (sum of the k) would lose a
            small one to rounding.

    Args:
        logits: ``(N, K)``; overwritten.
        k: How many are taken out.

    Raises:
        TrainingError: A logit is NaN or +inf, or all of a row are -inf.
    """

    def __init__(self, logits: torch.Tensor, k: int) -> None:
        values, self.ids = largest(logits, k)
        values = values - values[:, :1]
        weights = values.exp()
        # In place: a second tensor of this size would leave the processor's cache.
        self._others = logits.sub_(logits.gather(1, self.ids[:, :1])).exp_().scatter_(1, self.ids, 0.0)
        rest = self._others.sum(1)
        self._mass = (rest + weights.sum(1)).unsqueeze(1)
        require_finite(self._mass)
        self._weights = weights
        self.log_probs = values - self._mass.log()
        self.rest = rest / self._mass.squeeze(1)

    def log_probs_drawn(self, ids: torch.Tensor) -> torch.Tensor:
        """Natural logs of the probabilities of outcomes ``(N, m)`` that :meth:`draw` gave."""
        return (self._others.gather(1, ids) / self._mass).log()

    def draw(self, among_top: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """The outcomes at which a running sum of probabilities passes some shares of the whole.

        The sum runs over the outcomes beyond the k largest and those of the k that ``among_top`` names, in an order
        that is fixed. It is taken in two steps, since one sum over some thousand outcomes, one after the other, would
        take as long as the teacher.

        Args:
            among_top: ``(N, k)`` bool.
            share: ``(N, m)`` float64, from 0 to below 1.

        Returns:
            ``(N, m)`` int64; meaningless in a row where there is nothing to draw from.
        """
        weights = self._others.scatter_(1, self.ids, torch.where(among_top, self._weights, 0.0))
        rows, outcomes = weights.shape
        # Group g holds the outcomes g, g + groups, ...: sums over them are taken across whole runs. What does not fill
        # the lanes is a group of its own, the last.
        groups = outcomes // _LANES
        grouped = groups * _LANES
        sums = weights[:, :grouped].view(rows, _LANES, groups).sum(1)
        ends = torch.cat([sums, weights[:, grouped:].sum(1, keepdim=True)], dim=1).double().cumsum(1)
        target = share * ends[:, -1:]
        # Rounding must not lead beyond the last group that has any weight.
        last = (ends < ends[:, -1:]).sum(1, keepdim=True)
        group = torch.minimum(torch.searchsorted(ends, target, right=True), last).unsqueeze(2)
        begin = torch.where(group > 0, ends.gather(1, (group.squeeze(2) - 1).clamp(min=0)).unsqueeze(2), 0.0)
        lanes = torch.arange(_LANES, device=share.device)
        members = torch.where(group < groups, group + lanes * groups, grouped + lanes)
        there = members < outcomes
        found = weights.gather(1, members.clamp(max=outcomes - 1).view(rows, -1)).view(members.shape)
        running = (found * there).double().cumsum(2)
        # Between 0 and a hair below the group's own sum, an outcome without weight is never met.
        inside = torch.minimum((target.unsqueeze(2) - begin).clamp(min=0.0), running[..., -1:] * (1 - 1e-12))
        lane = (running <= inside).sum(2, keepdim=True).clamp(max=_LANES - 1)
        return members.gather(2, lane).squeeze(2).clamp(max=outcomes - 1)
