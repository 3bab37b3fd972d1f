"""What every task hands to a network: inputs that lead to logits at N prediction points over K outcomes."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Batch(NamedTuple):
    """One step's prediction points.

    Attributes:
        inputs: What the network's ``encode`` takes, in order; the first dimension may be padded samples, since
            ``encode`` returns hidden states of the valid prediction points only, ``(N, dim)``.
        targets: ``(N,)`` int64, the outcome that was observed at each point.
        points: ``(N,)`` int64, the stable ids of the points in the prepared data set.
    """

    inputs: tuple[torch.Tensor, ...]
    targets: torch.Tensor
    points: torch.Tensor
