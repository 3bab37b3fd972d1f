"""What a cache says of the teacher at N prediction points."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch


class SoftLabels(NamedTuple):
    """A teacher's distribution over K outcomes at N points: whole, or its k largest parts and the rest, or a sample.

    Attributes:
        ids: ``(N, k)`` int64, different outcomes; None when all K are given.
        log_probs: ``(N, k)`` float32, natural logs of their probabilities; ``(N, K)`` when all are given. Of a sample
            at a temperature: logs of the weights that a loss takes in their place.
        tail: ``(N,)`` float32, log of the probability of all other outcomes together; None when all K are given, and
            when the k stand for all.
        outcomes: K.
        log_inclusion: ``(N, k)`` float32, of a sample: log of the probability with which each outcome was drawn.
            :meth:`at_temperature` uses it up.
        hidden: ``(N, dim)`` float32, the teacher's hidden states, when they are stored.
    """

    ids: torch.Tensor | None
    log_probs: torch.Tensor
    tail: torch.Tensor | None
    outcomes: int
    log_inclusion: torch.Tensor | None = None
    hidden: torch.Tensor | None = None

    def at_temperature(self, temperature: float) -> SoftLabels:
        """The distribution proportional to ``p ** (1 / T)``.

        Dense labels: exactly ``softmax(log p / T)``. With a tail of mass t over the m = K - k other outcomes, their
        single probabilities are not known. The distribution of maximum entropy that agrees with what is known
        spreads t evenly, t / m each, so that at temperature T the outcomes weigh::

            w_i = p_i ** (1 / T)    for the k stored,    w_tail = m * (t / m) ** (1 / T)

        divided by their sum. At T = 1 this changes nothing, and the labels are returned as they are stored. For T > 1
        it gives the tail more mass than it has (a real tail is not even), for T < 1 less.

        A sample stands for all outcomes with the weights ``p_i ** (1 / T) / pi_i``, divided by their sum, where
        ``pi_i`` is the probability of being drawn. At T = 1 the sum is 1 but for the rounding of what is stored.

        Args:
            temperature: T > 0.
        """
        if not temperature > 0:
            raise ValueError("a temperature must be above 0")
        if self.log_inclusion is not None:
            weights = torch.log_softmax(self.log_probs / temperature - self.log_inclusion, dim=1)
            return self._replace(log_probs=weights, log_inclusion=None)
        if temperature == 1.0:
            return self
        scaled = self.log_probs / temperature
        if self.ids is None or self.tail is None:
            return self._replace(log_probs=torch.log_softmax(scaled, dim=1))
        log_others = math.log(max(self.outcomes - self.ids.shape[1], 1))
        tail = log_others + (self.tail - log_others) / temperature
        whole = torch.log_softmax(torch.cat([scaled, tail.unsqueeze(1)], dim=1), dim=1)
        return self._replace(log_probs=whole[:, :-1], tail=whole[:, -1])

    def rows(self, rows: slice) -> SoftLabels:
        """The labels of some of the points."""

        def taken(part: torch.Tensor | None) -> torch.Tensor | None:
            return None if part is None else part[rows]

        return self._replace(
            ids=taken(self.ids),
            log_probs=self.log_probs[rows],
            tail=taken(self.tail),
            log_inclusion=taken(self.log_inclusion),
            hidden=taken(self.hidden),
        )

    def to(self, device: torch.device | str) -> SoftLabels:
        """The same labels on another device."""

        def moved(part: torch.Tensor | None) -> torch.Tensor | None:
            return None if part is None else part.to(device)

        return self._replace(
            ids=moved(self.ids),
            log_probs=self.log_probs.to(device),
            tail=moved(self.tail),
            log_inclusion=moved(self.log_inclusion),
            hidden=moved(self.hidden),
        )
