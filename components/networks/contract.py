"""What distillation, pruning, export and evaluation know of a network, whatever its task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from pydantic import BaseModel
from torch import nn

from components.errors import CompressionError
from components.networks.units import Group


class ServedInput(NamedTuple):
    """One input of a served form.

    Attributes:
        name: In the exported graph, and in a feed.
        dtype: Of its values.
        shape: Of one example; the first axis is the batch.
        dynamic: Axes that are free at run time, by their name.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    dynamic: dict[int, str]


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
        """The served form: ``forward`` takes :attr:`served_inputs` in order, and gives scores ``(batch, K)``.

        Raises:
            CompressionError: This network has none (an ensemble, say, is served by its student).
        """
        raise CompressionError(f"a {type(self).__name__} has no served form", "Serve the student, or one member.")

    def added_to(self, name: str) -> torch.Tensor | None:
        """What is added to the weight of this name wherever that is used, and is one with it when it is served.

        Args:
            name: In the state dict.

        Returns:
            Of the weight's shape; None where nothing is added.
        """
        return None

    @property
    def multiplied_out(self) -> frozenset[str]:
        """Names of weights that are stored only as products with others when it is served."""
        return frozenset()

    def folded(self) -> PredictionNetwork:
        """The same function from as few weights as are served; the network itself where there are no fewer."""
        return self

    @property
    def row_keys(self) -> dict[str, torch.Tensor]:
        """What the rows of a parameter stand for where that is neither an outcome nor the same in all networks:
        ``(rows,)`` int64 by the parameter's name."""
        return {}

    @property
    def is_served(self) -> bool:
        """Whether it has a served form."""
        return type(self).for_serving is not PredictionNetwork.for_serving

    @property
    def served_inputs(self) -> tuple[ServedInput, ...]:
        """What the served form takes, as the exported graph names it.

        Raises:
            CompressionError: This network has no served form.
        """
        raise CompressionError(f"a {type(self).__name__} has no served form", "Serve the student, or one member.")

    @property
    def groups(self) -> list[Group]:
        """What can be cut out of it.

        Raises:
            CompressionError: It is not known.
        """
        raise CompressionError(
            f"it is not known what can be cut out of a network {self.record().get('network')!r}",
            "Set the ratios of `pruning` to 0.",
        )

    @property
    def hidden_dim(self) -> int:
        """Width of the hidden states that ``encode`` gives."""
        return int(self.record()["dim"])

    @property
    def head(self) -> torch.Tensor | None:
        """Weight ``(K, dim)`` of a network with ``score(hidden) == hidden @ head.T``; None where it is not so."""
        return None

    def copied_scorer(self) -> nn.Module:
        """A trainable copy of what :meth:`score` does, for a network without a :attr:`head`.

        Raises:
            CompressionError: It has none.
        """
        raise CompressionError(
            f"a {type(self).__name__} has no head that an auxiliary one could begin from",
            "Take `head: auxiliary` out of distillation.losses.",
        )

    @property
    @abstractmethod
    def outcomes(self) -> int:
        """K, the number of outcomes."""

    @property
    def max_length(self) -> int:
        """Events of a history that ``encode`` takes at most; 0 for a network that takes none."""
        return 0


Record = TypeVar("Record", bound=BaseModel)


class RecordedNetwork(PredictionNetwork, Generic[Record]):
    """A network that is rebuilt from an architecture record of its own.

    Args:
        record: Every width; it has ``outcomes``, and ``max_length`` where the network reads something of any length.
    """

    def __init__(self, record: Record) -> None:
        super().__init__()
        self._record = record

    def record(self) -> dict[str, Any]:
        """The architecture record."""
        return self._record.model_dump(mode="json")

    @property
    def outcomes(self) -> int:
        """K."""
        return int(self.record()["outcomes"])

    @property
    def max_length(self) -> int:
        """What the record says; 0 where it says nothing."""
        return int(self.record().get("max_length", 0))
