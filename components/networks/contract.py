"""What distillation, pruning, export and evaluation know of a network, whatever its task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from components.errors import CompressionError


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

    def for_serving(self) -> nn.Module:
        """The served form: ``forward(items, length)`` gives scores ``(batch, K)`` at each row's last valid position.

        Raises:
            CompressionError: This network has none (an ensemble, say, is served by its student).
        """
        raise CompressionError(f"a {type(self).__name__} has no served form", "Serve the student, or one member.")

    @property
    def head(self) -> torch.Tensor | None:
        """Weight ``(K, dim)`` of a network with ``score(hidden) == hidden @ head.T``; None where it is not so."""
        return None

    @property
    @abstractmethod
    def outcomes(self) -> int:
        """K, the number of outcomes."""

    @property
    def max_length(self) -> int:
        """Events of a history that ``encode`` takes at most; 0 for a network that takes none."""
        return 0
