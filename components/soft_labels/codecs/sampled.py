"""Codecs ``sampled`` and ``top_k_sampled``: k outcomes that stand for all of them without bias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from components.soft_labels.codecs.base import full, half
from components.soft_labels.codecs.distribution import Distribution
from components.soft_labels.codecs.ids import packed_ids, unpacked_ids
from components.soft_labels.codecs.listed import Listed
from components.soft_labels.labels import SoftLabels

# A sampled outcome must be a little smaller than the distance of two draws, so that no rounding makes it drawn twice.
_MARGIN = 1e-3


class Sampled(Listed):
    """k different outcomes, drawn so that a sum over them, weighted, is on average the sum over all K.

    Outcome i is drawn with probability ``pi_i = min(1, p_i / tau)`` and then stands for ``p_i / pi_i = max(p_i, tau)``
    (Horvitz & Thompson 1952), with ``tau`` such that ``sum_i pi_i = k``: what is larger than ``tau`` is always there
    with its own probability, and the others share their mass evenly among those that are drawn. The weights add up to
    1 in every row. The draw is systematic: with one uniform u a row, the outcomes at the masses ``(u + j) * tau``
    along the ids, j = 0, 1, ... (Madow 1949). ``E[sum_i w_i f_i] = sum_i p_i f_i`` for every f, hence the gradient of
    the cross entropy with the student is right on average. This is the importance sampling of Anshumann et al.,
    "Sparse Logit Sampling: Accelerating Knowledge Distillation in LLMs", ACL 2025, section 4, from p itself but
    without replacement, so that no label is spent twice on an outcome.

    Stored: ids, the logs of their own probabilities, and ``log tau``: 4 k + 2 bytes a point (5 k + 2 above 65,536
    outcomes). At a temperature other than 1 the weights are ``p_i ** (1 / T) / pi_i``, divided by their sum:
    consistent, but not quite free of bias.

    Args:
        outcomes: K.
        k: How many are stored, all K when it is larger than that.
        hidden_dim: See :class:`Codec`.
    """

    name = "sampled"
    beside = "log_tau"
    uniforms = 1

    @property
    def head(self) -> int:
        """How many of the largest are always stored, whatever their probabilities."""
        return 0

    def _encode(self, logits: torch.Tensor, uniforms: np.ndarray | None) -> dict[str, np.ndarray]:
        if uniforms is None:
            raise ValueError("this codec draws, and needs random numbers")
        found = Distribution(logits, self.k)
        certain, left = _certain(found, self.head)
        place = torch.arange(self.k, device=logits.device) - certain.unsqueeze(1)
        drawn = place >= 0
        number = (self.k - certain).clamp(min=1)
        uniform = torch.from_numpy(uniforms[:, :1]).to(logits.device)
        share = ((uniform + place) / number.unsqueeze(1)).clamp(min=0.0)
        ids = torch.where(drawn, found.draw(drawn, share), found.ids)
        log_probs = torch.where(drawn, found.log_probs_drawn(ids), found.log_probs)
        tau = torch.where(certain < self.k, left / number, 0.0)
        return {
            "ids": packed_ids(ids, self.outcomes),
            "log_probs": half(log_probs),
            "log_tau": half(tau.log()),
        }

    def _decode(self, columns: Mapping[str, np.ndarray]) -> SoftLabels:
        log_probs = full(columns["log_probs"])
        log_inclusion = (log_probs - full(columns["log_tau"]).unsqueeze(1)).clamp(max=0.0)
        log_inclusion[:, : self.head] = 0.0
        ids = unpacked_ids(columns["ids"], self.outcomes)
        return SoftLabels(ids, log_probs, None, self.outcomes, log_inclusion)


class TopKSampled(Sampled):
    """The ``head`` largest outcomes exactly, and the other labels sampled from what is left; see :class:`Sampled`.

    With ``head = 0`` it is :class:`Sampled`, which keeps exactly what is worth it; a larger head keeps the order of
    the teacher's list, at the cost of a noisier tail.

    Args:
        outcomes: K.
        k: How many are stored in all.
        head: How many of them are the largest; below k.
        hidden_dim: See :class:`Codec`.
    """

    name = "top_k_sampled"

    def __init__(self, outcomes: int, k: int, head: int, hidden_dim: int = 0) -> None:
        super().__init__(outcomes, k, hidden_dim)
        self._head = min(head, self.k)

    @property
    def head(self) -> int:
        """How many of the largest are always stored, whatever their probabilities."""
        return self._head

    def _options(self) -> dict[str, Any]:
        return {"k": self.k, "head": self.head}


def _certain(found: Distribution, head: int) -> tuple[torch.Tensor, torch.Tensor]:
    """How many of the largest are always there ``(N,)`` int64, and the mass of all others ``(N,)``.

    The smallest n, from ``head`` on, whose next outcome is not larger than ``tau = (mass beyond n) / (k - n)``.
    """
    top = found.log_probs.exp()
    k = top.shape[1]
    # beyond[:, n]: the mass without the n largest, added up from the small end.
    beyond = torch.cat([top, found.rest.unsqueeze(1)], dim=1).flip(1).cumsum(1).flip(1)
    number = torch.arange(k, 0, -1, device=top.device, dtype=top.dtype)
    fits = top * number < beyond[:, :k] * (1 - _MARGIN)
    # One draw cannot meet an outcome twice; and without a rest there is nothing to draw from.
    fits[:, k - 1] = found.rest > 0
    fits[:, :head] = False
    certain = torch.where(fits.any(1), fits.int().argmax(1), k)
    return certain, beyond.gather(1, certain.unsqueeze(1)).squeeze(1)
