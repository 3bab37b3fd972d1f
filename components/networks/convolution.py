"""A convolutional network over images: convolutions with ReLU, halved in between, then linear layers."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import nn

from components.networks.contract import RecordedNetwork, ServedInput
from components.networks.units import Group, Slice

Shape = tuple[int, int, int]
"""Channels, rows, columns."""


class ConvolutionRecord(BaseModel):
    """Everything that is needed to rebuild the network for its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["convolution"] = "convolution"
    outcomes: int
    shape: Shape
    """Of an image."""
    channels: tuple[int, ...]
    """Of each convolution."""
    kernel: int
    """Rows and columns that a convolution reads, an odd number."""
    halved_after: tuple[int, ...]
    """Numbers of the convolutions, from 1, after which the greatest of each 2 x 2 stays."""
    hidden: tuple[int, ...]
    """Channels of each linear layer before the last."""
    dropout: float
    mean: float
    """Taken from each value."""
    scale: float
    """What is left is divided by it."""

    def places(self) -> int:
        """Rows times columns that are left after the last convolution."""
        _, rows, columns = self.shape
        return (rows >> len(self.halved_after)) * (columns >> len(self.halved_after))


class Convolution(RecordedNetwork[ConvolutionRecord]):
    """From the values of images, flat ``(N, D)``, to logits ``(N, K)``.

    There is no batch norm: nothing is then kept beside the weights, and a channel is gone when its weights are.
    """

    def __init__(self, record: ConvolutionRecord) -> None:
        super().__init__(record)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, record.kernel, padding=record.kernel // 2)
            for a, b in pairwise((record.shape[0], *record.channels))
        )
        widths = (record.channels[-1] * record.places(), *record.hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.output = nn.Linear(widths[-1], record.outcomes)
        self.dropout = nn.Dropout(record.dropout)
        for layer in (*self.convolutions, *self.layers):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    @property
    def hidden_dim(self) -> int:
        """Width of what the last layer reads."""
        return self.output.in_features

    def encode(self, values: torch.Tensor) -> torch.Tensor:
        """Hidden states ``(N, hidden_dim)`` of values ``(N, D)``."""
        x = (values.to(self.output.weight.dtype) - self._record.mean) / self._record.scale
        x = x.reshape(len(values), *self._record.shape)
        for number, convolution in enumerate(self.convolutions, start=1):
            x = F.relu(convolution(x))
            if number in self._record.halved_after:
                x = F.max_pool2d(x, 2)
        x = self.dropout(x.flatten(1))
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
        """The channels of each convolution, and of each linear layer but the last."""
        linear = [f"layers.{number}" for number in range(len(self.layers))]
        makers = [f"convolutions.{number}" for number in range(len(self.convolutions))] + linear
        readers = [*makers[1:], "output"]
        last = len(self.convolutions) - 1
        groups = []
        for number, (maker, reader) in enumerate(zip(makers, readers, strict=True)):
            # The first linear layer reads a channel at every place that is left of the image.
            read = Slice(f"{reader}.weight", 1, self._record.places() if number == last else 1)
            key = ("channels", number) if number <= last else ("hidden", number - last - 1)
            groups.append(
                Group(
                    maker,
                    "channels" if number <= last else "ffn",
                    (self._record.channels + self._record.hidden)[number],
                    (Slice(f"{maker}.weight", 0), Slice(f"{maker}.bias", 0), read),
                    key,
                )
            )
        return groups

    @property
    def served_inputs(self) -> tuple[ServedInput, ...]:
        """The values of an image, row by row."""
        channels, rows, columns = self._record.shape
        return (ServedInput("values", torch.float32, (2, channels * rows * columns), {0: "batch"}),)

    def for_serving(self) -> nn.Module:
        """The same function, with linear weights stored as ``(in, out)``, as ONNX's MatMul wants them."""
        return ServedConvolution(self).eval()


class ServedConvolution(nn.Module):
    """From values ``(batch, D)`` to scores ``(batch, K)``.

    Args:
        network: Whose function.
    """

    def __init__(self, network: Convolution) -> None:
        super().__init__()
        self.record = ConvolutionRecord.model_validate(network.record())
        self.convolutions = network.convolutions
        linears = [*network.layers, network.output]
        self.weights, self.biases = (
            nn.ParameterList(nn.Parameter(part.detach().clone().contiguous(), requires_grad=False) for part in parts)
            for parts in ([linear.weight.T for linear in linears], [linear.bias for linear in linears])
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Scores ``(batch, K)``."""
        x = (values - self.record.mean) * (1 / self.record.scale)
        x = x.reshape(-1, *self.record.shape)
        for number, convolution in enumerate(self.convolutions, start=1):
            x = F.relu(convolution(x))
            if number in self.record.halved_after:
                x = F.max_pool2d(x, 2)
        x = x.flatten(1)
        last = len(self.weights) - 1
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            if number < last:
                x = F.relu(x)
        return x
