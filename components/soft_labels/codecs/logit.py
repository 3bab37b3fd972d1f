"""Codec ``logit``: one yes or no a row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from components.errors import SettingsError
from components.soft_labels.codecs.base import HALF, Codec, Column, require_finite
from components.soft_labels.labels import SoftLabels

_LARGEST = float(torch.finfo(torch.float16).max)


class Logit(Codec):
    """The logit itself of the one outcome of a task like ``click``: 2 bytes a row.

    A click is a distribution over two outcomes, no and yes, of log-probabilities ``log sigmoid(-logit)`` and
    ``log sigmoid(logit)``; at temperature T they are those of ``logit / T``, exactly. In half precision a logit of
    size 8 to 16 is off by 0.004 at most, and the probability of the rarer outcome by 0.4 % of itself.

    Raises:
        SettingsError: The task has more than one outcome.
    """

    name = "logit"

    def __init__(self, outcomes: int, hidden_dim: int = 0) -> None:
        if outcomes != 1:
            raise SettingsError(
                f"the codec logit is for tasks with one outcome a row, and this one has {outcomes}",
                "Set `soft_labels.codec` to top_k_tail, or to dense for few outcomes.",
            )
        super().__init__(outcomes, hidden_dim)

    def _columns(self) -> dict[str, Column]:
        return {"logit": Column(HALF, ())}

    def _encode(self, logits: torch.Tensor, uniforms: np.ndarray | None) -> dict[str, np.ndarray]:
        require_finite(logits)
        return {"logit": logits.squeeze(1).clamp(-_LARGEST, _LARGEST).half().cpu().numpy()}

    def _decode(self, columns: Mapping[str, np.ndarray]) -> SoftLabels:
        logit = torch.from_numpy(columns["logit"].astype(np.float32))
        return SoftLabels(None, torch.stack([F.logsigmoid(-logit), F.logsigmoid(logit)], dim=1), None, 2)

    def masses(self, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Of each row ``(N,)`` float32: the probability of the likelier outcome, and 1."""
        larger = np.abs(columns["logit"].astype(np.float32))
        return 1 / (1 + np.exp(-larger)), np.ones_like(larger)
