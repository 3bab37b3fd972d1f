"""A multilayer perceptron over a fixed number of values; without hidden layers it is a linear model."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import nn

from components.networks.contract import RecordedNetwork, ServedInput
from components.networks.units import Group, hidden_layer_groups


class PerceptronRecord(BaseModel):
    """Everything that is needed to rebuild the network for its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["perceptron"] = "perceptron"
    outcomes: int
    hidden: tuple[int, ...]
    dropout: float
    mean: tuple[float, ...]
    """Taken from each value."""
    scale: tuple[float, ...]
    """What is left is divided by it."""


class Perceptron(RecordedNetwork[PerceptronRecord]):
    """From values ``(N, D)`` to logits ``(N, K)``: normalised, then linear layers with ReLU between them."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, record: PerceptronRecord) -> None:
        super().__init__(record)
        # The record has them: among the weights they would be two truths.
        self.register_buffer("mean", torch.tensor(record.mean), persistent=False)
        self.register_buffer("scale", torch.tensor(record.scale), persistent=False)
        widths = (len(record.mean), *record.hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.output = nn.Linear(widths[-1], record.outcomes)
        self.dropout = nn.Dropout(record.dropout)

    @property
    def hidden_dim(self) -> int:
        """Width of the last hidden layer."""
        return self.output.in_features

    def encode(self, values: torch.Tensor) -> torch.Tensor:
        """Hidden states ``(N, hidden_dim)`` of values ``(N, D)``."""
        x = (values - self.mean) / self.scale
        for layer in self.layers:
            x = self.dropout(F.relu(layer(x)))
        return x

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, K)``."""
        return self.output(hidden)

    def copied_scorer(self) -> nn.Module:
        """The last layer."""
        return copy.deepcopy(self.output)

    @property
    def groups(self) -> list[Group]:
        """The channels of each hidden layer."""
        return hidden_layer_groups(self._record.hidden, "output")

    @property
    def served_inputs(self) -> tuple[ServedInput, ...]:
        """The values."""
        return (ServedInput("values", torch.float32, (2, len(self._record.mean)), {0: "batch"}),)

    def for_serving(self) -> nn.Module:
        """The same function, with weights stored as ``(in, out)``, as ONNX's MatMul wants them."""
        return ServedPerceptron(self).eval()


class ServedPerceptron(nn.Module):
    """From values ``(batch, D)`` to scores ``(batch, K)``.

    Args:
        network: Whose function.
    """

    def __init__(self, network: Perceptron) -> None:
        super().__init__()
        self.mean, self.factor = (
            nn.Parameter(part.detach().clone(), requires_grad=False) for part in (network.mean, 1 / network.scale)
        )
        linears = [*network.layers, network.output]
        self.weights, self.biases = (
            nn.ParameterList(nn.Parameter(part.detach().clone().contiguous(), requires_grad=False) for part in parts)
            for parts in ([linear.weight.T for linear in linears], [linear.bias for linear in linears])
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Scores ``(batch, K)``."""
        x = (values - self.mean) * self.factor
        last = len(self.weights) - 1
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            if number < last:
                x = F.relu(x)
        return x
