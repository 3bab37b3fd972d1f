"""What every task hands to a network: inputs that lead to logits at N prediction points over K outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from components.soft_labels.labels import SoftLabels


class Batch(NamedTuple):
    """One step's prediction points.

    Attributes:
        inputs: What the network's ``encode`` takes, in order; the first dimension may be padded samples, since
            ``encode`` returns hidden states of the valid prediction points only, ``(N, dim)``.
        targets: ``(N,)`` int64, the outcome that was observed at each point.
        points: ``(N,)`` int64, the stable ids of the points in the prepared data set.
        step_points: Points of the whole step over all devices, which a mean divides by; N on one device.
        labels: The teacher's distribution at each point, N rows at temperature 1, when it has been looked up already.
    """

    inputs: tuple[torch.Tensor, ...]
    targets: torch.Tensor
    points: torch.Tensor
    step_points: int
    labels: SoftLabels | None = None


class EvaluationBatch(NamedTuple):
    """B held-out events, each to be predicted from everything its user did before.

    Attributes:
        inputs: What the network's ``encode`` takes; it leads to ``(B, dim)``, the newest position of each history.
        feed: The same histories for a served ONNX graph: ``items`` ``(B, length)`` int64, padded on the right, and
            ``length`` ``(B,)`` int64.
        targets: ``(B,)`` int64, the held-out items.
        users: ``(B,)`` int64.
        seen: Two int64 tensors of the same size, row in the batch and item: every item of the whole history, not
            only of the part that the network sees.
    """

    inputs: tuple[torch.Tensor, ...]
    feed: dict[str, np.ndarray]
    targets: torch.Tensor
    users: torch.Tensor
    seen: tuple[torch.Tensor, torch.Tensor]
