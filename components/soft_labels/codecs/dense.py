"""Codec ``dense``: every outcome."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from components.soft_labels.codecs.base import HALF, Codec, Column, full, half, require_finite
from components.soft_labels.labels import SoftLabels


class Dense(Codec):
    """``log_probs_i = logit_i - log sum_j exp(logit_j)`` of all K outcomes: 2 K bytes a point. For small K."""

    name = "dense"

    def _columns(self) -> dict[str, Column]:
        return {"log_probs": Column(HALF, (self.outcomes,))}

    def _encode(self, logits: torch.Tensor, uniforms: np.ndarray | None) -> dict[str, np.ndarray]:
        # Of logits that are not finite, NaN or +inf makes all of the row NaN; -inf alone is an outcome without mass.
        log_probs = torch.log_softmax(logits, dim=1)
        require_finite(log_probs.amax(1))
        return {"log_probs": half(log_probs)}

    def _decode(self, columns: Mapping[str, np.ndarray]) -> SoftLabels:
        return SoftLabels(None, full(columns["log_probs"]), None, self.outcomes)
