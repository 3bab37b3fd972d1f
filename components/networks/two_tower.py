"""Two towers: a user is a function of the mean of the rows of the user's items, an item is a row.

After Covington, Adams and Sargin, "Deep Neural Networks for YouTube Recommendations", RecSys 2016, with the mean of the
rows times the root of their number, so that how much is known of a user shows in the length of the vector, and with a
learned weight for each item's part in it (attention with one query that all users share).
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import nn

from components.networks.contract import RecordedNetwork, ServedInput
from components.networks.item_sets import counted_rows, item_set_inputs
from components.networks.text_serving import Projection
from components.networks.units import Group, hidden_layer_groups


class TwoTowerRecord(BaseModel):
    """Everything that is needed to rebuild the network for its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["two_tower"] = "two_tower"
    items: int
    dim: int
    hidden: tuple[int, ...]
    tied: bool
    max_length: int
    dropout: float


class TwoTower(RecordedNetwork[TwoTowerRecord]):
    """From the items of users to logits over the catalogue."""

    def __init__(self, record: TwoTowerRecord) -> None:
        super().__init__(record)
        self.item = nn.Embedding(record.items, record.dim)
        self.query = nn.Parameter(torch.zeros(record.dim))
        widths = (record.dim, *record.hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.last = nn.Linear(widths[-1], record.dim)
        self.output = None if record.tied else nn.Linear(record.dim, record.items, bias=False)
        self.dropout = nn.Dropout(record.dropout)
        nn.init.normal_(self.item.weight, std=0.1)
        if self.output is not None:
            nn.init.normal_(self.output.weight, std=0.1)
        nn.init.eye_(self.last.weight)

    @property
    def outcomes(self) -> int:
        """Size of the catalogue."""
        return self._record.items

    @property
    def head(self) -> torch.Tensor:
        """The items' rows."""
        return self.item.weight if self.output is None else self.output.weight

    def encode(self, items: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """Vectors of users ``(N, dim)`` of items ``(N, length)`` int64, padded on the right."""
        rows, count = counted_rows(self.item.weight, items, length)
        x = self.dropout(pooled(rows, self.query, count))
        for layer in self.layers:
            x = self.dropout(F.relu(layer(x)))
        return self.last(x)

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, K)``."""
        return F.linear(hidden, self.head)

    @property
    def groups(self) -> list[Group]:
        """The channels of each hidden layer."""
        return hidden_layer_groups(self._record.hidden, "last")

    @property
    def served_inputs(self) -> tuple[ServedInput, ...]:
        """See :func:`item_set_inputs`."""
        return item_set_inputs()

    def for_serving(self) -> nn.Module:
        """See :class:`ServedTwoTower`."""
        return ServedTwoTower(self)


class ServedTwoTower(nn.Module):
    """The same function, with weights stored as ``(in, out)``, as ONNX's MatMul wants them.

    Args:
        network: Whose function; it stays as it is.
    """

    def __init__(self, network: TwoTower) -> None:
        super().__init__()
        source = copy.deepcopy(network)
        self.item, self.query = (part.requires_grad_(False) for part in (source.item.weight, source.query))
        self.output = None if source.output is None else source.output.weight.requires_grad_(False)
        linears = [layer for layer in source.layers if isinstance(layer, nn.Linear)]
        self.layers = nn.ModuleList(Projection(linear) for linear in linears)
        self.last = Projection(source.last)

    def forward(self, items: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """Scores ``(batch, K)`` of items ``(batch, length)``, padded on the right, and their numbers ``(batch,)``."""
        rows, count = counted_rows(self.item, items, length)
        x = pooled(rows, self.query, count)
        for layer in self.layers:
            x = F.relu(layer(x))
        return F.linear(self.last(x), self.item if self.output is None else self.output)


def pooled(rows: torch.Tensor, query: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """``sqrt(n) * sum_i a_i v_i`` with ``a = softmax(v . query)`` over the n items of each user, ``(N, dim)``.

    Args:
        rows: ``(N, length, dim)``, zeros where there is no item.
        query: ``(dim,)``.
        count: ``(N, 1)``.
    """
    there = torch.arange(rows.shape[1], device=rows.device) < count
    weight = (rows * query).sum(-1).masked_fill(~there, _HIDDEN).softmax(-1)
    return (rows * weight[..., None]).sum(1) * count.sqrt()


# Far below any score, and finite: the weight of what is not there is exactly 0 after the softmax, and never NaN.
_HIDDEN = -1e9
