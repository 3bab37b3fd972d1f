"""Codec ``top_k_tail``: the k largest, and all others as one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from components.soft_labels.codecs.base import full, half
from components.soft_labels.codecs.distribution import Distribution
from components.soft_labels.codecs.ids import packed_ids, unpacked_ids
from components.soft_labels.codecs.listed import Listed
from components.soft_labels.labels import SoftLabels


class TopKTail(Listed):
    """The k most probable outcomes, and the log of the mass that all others have together.

    ``log_probs_i = logit_i - log sum_j exp(logit_j)`` for the k largest, ``tail`` the same with the log-sum-exp of
    the others' logits in place of ``logit_i``. A student is then compared over k + 1 outcomes; unlike the k
    renormalised to 1, this does not teach it that nothing else ever happens (the bias that Anshumann et al., "Sparse
    Logit Sampling: Accelerating Knowledge Distillation in LLMs", ACL 2025, section 3, measure for plain top-k). How
    the tail is spread is left to the student.

    4 k + 2 bytes a point (5 k + 2 above 65,536 outcomes). Outcomes of the same logit: the lower id is kept first.

    Args:
        outcomes: K.
        k: How many are stored singly, all K when it is larger than that.
        hidden_dim: See :class:`Codec`.
    """

    name = "top_k_tail"
    beside = "tail"

    def _encode(self, logits: torch.Tensor, uniforms: np.ndarray | None) -> dict[str, np.ndarray]:
        found = Distribution(logits, self.k)
        return {
            "ids": packed_ids(found.ids, self.outcomes),
            "log_probs": half(found.log_probs),
            "tail": half(found.rest.log()),
        }

    def _decode(self, columns: Mapping[str, np.ndarray]) -> SoftLabels:
        return SoftLabels(
            unpacked_ids(columns["ids"], self.outcomes),
            full(columns["log_probs"]),
            full(columns["tail"]),
            self.outcomes,
        )
