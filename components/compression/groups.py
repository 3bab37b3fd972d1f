"""What can be cut out of a network: groups of units, and where each unit's weights lie.

A unit (a feed-forward channel, an attention head, a channel of the model width) leaves no trace only when every weight
that makes it or reads it goes together. torch-pruning 1.6.1 was tried for finding these by tracing: it cuts the blocks
rightly, but it misses the head of an untied network when the width is cut (the network then fails), leaves the number
of heads to its caller (the network then runs, and is wrong), and gives groups of channels that must be translated to
heads and to the architecture record anyway. The explicit list is shorter than the translation, and all that needs "the
weights of unit u" (importance, group lasso, mask equivalence) reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from components.errors import CompressionError
from components.networks.contract import PredictionNetwork

Kind = Literal["ffn", "heads", "width"]


@dataclass(frozen=True)
class Slice:
    """Where a group's units lie in one parameter: unit u at ``u * size`` to ``(u + 1) * size`` of an axis."""

    parameter: str
    axis: int
    size: int = 1

    def units_of(self, tensor: torch.Tensor, units: int) -> torch.Tensor:
        """A parameter, or its gradient, as ``(units, values of a unit)``."""
        return tensor.movedim(self.axis, 0).reshape(units, -1)

    def indices(self, units: torch.Tensor) -> torch.Tensor:
        """Places on the axis of these units, ``(len(units) * size,)``."""
        return (units[:, None] * self.size + torch.arange(self.size)).flatten()


@dataclass(frozen=True)
class Group:
    """Units of one kind that can be cut out one by one.

    Attributes:
        name: Unique in the network, e.g. ``blocks.0.ffn``.
        kind: What a unit is.
        units: How many there are.
        slices: All weights of the units.
        record: Keys that lead to the number of units in the architecture record.
    """

    name: str
    kind: Kind
    units: int
    slices: tuple[Slice, ...]
    record: tuple[str | int, ...]


def prunable_groups(network: PredictionNetwork) -> list[Group]:
    """Feed-forward channels and heads of each block, and the model width, which runs through everything.

    Raises:
        CompressionError: It is not known what can be cut out of this network.
    """
    record = network.record()
    if record.get("network") != "causal_transformer":
        raise CompressionError(
            f"it is not known what can be cut out of a network {record.get('network')!r}",
            "Set the ratios of `pruning` to 0.",
        )
    width = [Slice("item.weight", 1), Slice("position.weight", 1), *_norm("norm.")]
    if not record["tied"]:
        width.append(Slice("output.weight", 1))
    groups = []
    for number, block in enumerate(record["blocks"]):
        groups += _block_groups(number, block)
        width += _block_width(f"blocks.{number}.")
    return [*groups, Group("width", "width", record["dim"], tuple(width), ("dim",))]


def _block_groups(number: int, block: dict[str, Any]) -> list[Group]:
    prefix = f"blocks.{number}."
    attention, size = f"{prefix}attention.", block["head_dim"]
    heads = [Slice(f"{attention}{part}.{kind}", 0, size) for part in "qkv" for kind in ("weight", "bias")]
    heads.append(Slice(f"{attention}o.weight", 1, size))
    ffn = (Slice(f"{prefix}ffn_in.weight", 0), Slice(f"{prefix}ffn_in.bias", 0), Slice(f"{prefix}ffn_out.weight", 1))
    place = ("blocks", number)
    return [
        Group(f"{prefix}ffn", "ffn", block["ffn_dim"], ffn, (*place, "ffn_dim")),
        Group(f"{prefix}heads", "heads", block["heads"], tuple(heads), (*place, "heads")),
    ]


def _block_width(prefix: str) -> list[Slice]:
    into = [f"{prefix}attention.{part}.weight" for part in "qkv"] + [f"{prefix}ffn_in.weight"]
    out = [f"{prefix}attention.o.", f"{prefix}ffn_out."]
    return [
        *_norm(f"{prefix}attention_norm."),
        *_norm(f"{prefix}ffn_norm."),
        *(Slice(name, 1) for name in into),
        *(Slice(f"{name}{kind}", 0) for name in out for kind in ("weight", "bias")),
    ]


def _norm(prefix: str) -> list[Slice]:
    return [Slice(f"{prefix}weight", 0), Slice(f"{prefix}bias", 0)]
