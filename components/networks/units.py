"""What can be cut out of a network: groups of units, and where each unit's weights lie.

A unit (a feed-forward channel, an attention head, a channel of all heads, one of the model width) leaves no trace only
when every weight that makes it or reads it goes together. torch-pruning 1.6.1 was tried for finding these by tracing:
it cuts the blocks rightly, but it misses the head of an untied network when the width is cut (the network then fails),
leaves the number of heads to its caller (the network then runs, and is wrong), and gives groups of channels that must
be translated to heads and to the architecture record anyway. The explicit list is shorter than the translation, and all
that needs "the weights of unit u" (importance, group lasso, mask equivalence) reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

Kind = Literal["ffn", "heads", "head_width", "width", "channels"]


@dataclass(frozen=True)
class Slice:
    """Where a group's units lie in one parameter: unit u at ``u * size`` to ``(u + 1) * size`` of an axis, and where
    they recur, as the channels of a head do, again after all ``units * size``."""

    parameter: str
    axis: int
    size: int = 1
    recurs: bool = False

    def units_of(self, tensor: torch.Tensor, units: int) -> torch.Tensor:
        """A parameter, or its gradient, as ``(units, values of a unit)``."""
        return tensor.movedim(self.axis, 0).reshape(self._times(tensor, units), units, -1).transpose(0, 1).flatten(1)

    def indices(self, chosen: torch.Tensor, tensor: torch.Tensor, units: int) -> torch.Tensor:
        """Places on the axis of the ``chosen`` of all ``units``, ``(times * len(chosen) * size,)``, ascending as they
        are."""
        once = (chosen[:, None] * self.size + torch.arange(self.size)).flatten()
        starts = torch.arange(self._times(tensor, units)) * (units * self.size)
        return (starts[:, None] + once).flatten()

    def _times(self, tensor: torch.Tensor, units: int) -> int:
        return tensor.shape[self.axis] // (units * self.size) if self.recurs else 1


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


def hidden_layer_groups(widths: Sequence[int], last: str) -> list[Group]:
    """The channels of the linear layers ``layers.0``, ``layers.1`` and so on; ``hidden`` in the architecture record.

    Args:
        widths: Channels of each.
        last: The layer that reads the last of them.
    """
    readers = [*(f"layers.{number}" for number in range(1, len(widths))), last]
    found = []
    for number, (width, reader) in enumerate(zip(widths, readers, strict=False)):
        sides = (Slice(f"layers.{number}.weight", 0), Slice(f"layers.{number}.bias", 0), Slice(f"{reader}.weight", 1))
        found.append(Group(f"layers.{number}", "ffn", width, sides, ("hidden", number)))
    return found


def norm_slices(prefix: str) -> list[Slice]:
    """Weight and bias of a norm, one unit a channel."""
    return [Slice(f"{prefix}weight", 0), Slice(f"{prefix}bias", 0)]
