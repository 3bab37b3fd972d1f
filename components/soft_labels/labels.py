"""What a cache says of the teacher at N prediction points."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch


class SoftLabels(NamedTuple):
    """A teacher's distribution over K outcomes at N points, whole or as its k largest parts and the rest.

    Attributes:
        ids: ``(N, k)`` int64, the most probable outcomes, best first; None when all K are given.
        log_probs: ``(N, k)`` float32, natural logs of their probabilities; ``(N, K)`` when all are given.
        tail: ``(N,)`` float32, log of the probability of all other outcomes together; None when all K are given.
        outcomes: K.
    """

    ids: torch.Tensor | None
    log_probs: torch.Tensor
    tail: torch.Tensor | None
    outcomes: int

    def at_temperature(self, temperature: float) -> SoftLabels:
        """The distribution proportional to ``p ** (1 / T)``.

        Dense labels: exactly ``softmax(log p / T)``. With a tail of mass t over the m = K - k other outcomes, their
        single probabilities are not known. The distribution of maximum entropy that agrees with what is known
        spreads t evenly, t / m each, so that at temperature T the outcomes weigh::

            w_i = p_i ** (1 / T)    for the k stored,    w_tail = m * (t / m) ** (1 / T)

        divided by their sum. At T = 1 this changes nothing, and the labels are returned as they are stored. For T > 1
        it gives the tail more mass than it has (a real tail is not even), for T < 1 less.

        Args:
            temperature: T > 0.
        """
        if temperature == 1.0:
            return self
        if not temperature > 0:
            raise ValueError("a temperature must be above 0")
        scaled = self.log_probs / temperature
        if self.ids is None or self.tail is None:
            return self._replace(log_probs=torch.log_softmax(scaled, dim=1))
        log_others = math.log(max(self.outcomes - self.ids.shape[1], 1))
        tail = log_others + (self.tail - log_others) / temperature
        whole = torch.log_softmax(torch.cat([scaled, tail.unsqueeze(1)], dim=1), dim=1)
        return self._replace(log_probs=whole[:, :-1], tail=whole[:, -1])

    def to(self, device: torch.device | str) -> SoftLabels:
        """The same labels on another device."""
        return self._replace(
            ids=None if self.ids is None else self.ids.to(device),
            log_probs=self.log_probs.to(device),
            tail=None if self.tail is None else self.tail.to(device),
        )
