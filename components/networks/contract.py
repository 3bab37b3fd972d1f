"""What distillation, pruning, export and evaluation know of a network, whatever its task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn


class PredictionNetwork(nn.Module, ABC):
    """A network from a batch's inputs to logits at N prediction points over K outcomes."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """The architecture record: JSON-able, with every width, enough to rebuild the network for its weights."""

    @abstractmethod
    def encode(self, *inputs: Any, **named: Any) -> torch.Tensor:
        """Hidden states ``(N, dim)`` of the valid prediction points, in the order of the batch's targets."""

    @abstractmethod
    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, K)`` of hidden states ``(N, dim)``."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, K)``: ``score(encode(*inputs))``."""
        return self.score(self.encode(*inputs))

    @property
    @abstractmethod
    def outcomes(self) -> int:
        """K, the number of outcomes."""
