"""A deep cross network over the features of a row, with attention from its item over the user's history.

Crosses: Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank
Systems", WWW 2021, section 3.2, in the low-rank form. Attention: Zhou et al., "Deep Interest Network for Click-Through
Rate Prediction", KDD 2018, section 4.3, with a softmax over the history in the place of the plain sum. Without crosses,
hidden layers and attention it is a logistic model of embeddings.
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
from components.networks.cross_network_serving import served_form
from components.networks.units import Group, Slice, hidden_layer_groups

_CLIP = 5.0  # Normalised numbers beyond it say no more: one absurd value must not decide.
_MASKED = -1e4


class CrossNetworkRecord(BaseModel):
    """Everything that is needed to rebuild the network for its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["cross_network"] = "cross_network"
    outcomes: int
    rows: int
    """Of the table of embeddings; row 0 stands for nothing."""
    dim: int
    """Width of a row."""
    columns: int
    """Of ``categories``; those of privileged features are not read unless they are counted below."""
    single: int
    """Fields of one category, the first columns."""
    passed_over: int
    """Columns after them that are not read."""
    bags: tuple[int, ...]
    """Columns of each further field, of several categories or none; those after them are not read."""
    mean: tuple[float, ...]
    """Taken from each number."""
    scale: tuple[float, ...]
    """What is left is divided by it."""
    target: int
    """Column of ``categories`` with the item that a history is of."""
    max_length: int
    """Events of a history; 0 for none."""
    heads: int
    """Of the attention."""
    attention_hidden: int
    """Hidden channels of the attention; 0: the mean of the history."""
    cross_ranks: tuple[int, ...]
    """Rank of the matrix of each cross layer."""
    hidden: tuple[int, ...]
    """Channels of each hidden layer after the crosses."""
    dropout: float

    @property
    def width(self) -> int:
        """Of the vector of all features."""
        pooled = 0 if not self.max_length else 2 + self.dim * (self.heads if self.attention_hidden else 2)
        return self.dim * (self.single + len(self.bags)) + 2 * len(self.mean) + pooled


class TargetAttention(nn.Module):
    """Weights of a history's events by a small network over the item, an event, and their product.

    ``relu(A q + B k + C (q * k) + b)``, then a linear layer a head: DIN's unit over ``[q, k, q - k, q * k]``, whose
    difference is in A and B already.
    """

    def __init__(self, dim: int, hidden: int, heads: int, max_length: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, hidden)
        self.key = nn.Parameter(torch.empty(hidden, dim))
        self.product = nn.Parameter(torch.empty(hidden, dim))
        self.output = nn.Linear(hidden, heads)
        self.recency = nn.Parameter(torch.zeros(max_length, heads))
        nn.init.normal_(self.key, std=dim**-0.5)
        nn.init.normal_(self.product, std=1.0)

    def forward(self, query: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """``(B, heads, length)`` weights of ``keys`` ``(B, length, dim)`` for ``query`` ``(B, dim)``.

        ``mask`` ``(B, length)`` is 1 where there is an event; without any, the weights are 0.
        """
        # One matrix a row in the place of a product a pair: nothing of (B, length, dim) is made beside the keys.
        of_row = (self.key + query.unsqueeze(1) * self.product).transpose(1, 2)
        hidden = F.relu(torch.bmm(keys, of_row) + self.query(query).unsqueeze(1))
        logits = self.output(hidden) + self.recency[: keys.shape[1]]
        present = mask.unsqueeze(-1)
        weights = torch.softmax(logits + (1 - present) * _MASKED, dim=1) * present
        return weights.transpose(1, 2)


class Cross(nn.Module):
    """``x0 * (W x + b) + x`` with W of low rank."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, rank, bias=False)
        self.outer = nn.Linear(rank, width)
        nn.init.normal_(self.outer.weight, std=0.1 * rank**-0.5)
        nn.init.zeros_(self.outer.bias)

    def forward(self, first: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """``(B, width)``."""
        return first * self.outer(self.inner(x)) + x


class CrossNetwork(RecordedNetwork[CrossNetworkRecord]):
    """From the features of rows to one logit each."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, record: CrossNetworkRecord) -> None:
        super().__init__(record)
        self.register_buffer("mean", torch.tensor(record.mean), persistent=False)
        self.register_buffer("scale", torch.tensor(record.scale), persistent=False)
        self.table = nn.Embedding(record.rows, record.dim)
        nn.init.normal_(self.table.weight, std=0.05)
        self.attention: TargetAttention | None = None
        self.outcome: nn.Parameter | None = None
        if record.max_length:
            self.outcome = nn.Parameter(torch.randn(2, record.dim) * 0.05)
            if record.attention_hidden:
                self.attention = TargetAttention(record.dim, record.attention_hidden, record.heads, record.max_length)
        self.crosses = nn.ModuleList(Cross(record.width, rank) for rank in record.cross_ranks)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((record.width, *record.hidden)))
        self.output = nn.Linear((record.width, *record.hidden)[-1], record.outcomes)
        self.dropout = nn.Dropout(record.dropout)

    @property
    def hidden_dim(self) -> int:
        """Width of the last hidden layer."""
        return self.output.in_features

    def encode(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Hidden states ``(B, hidden_dim)``.

        Args:
            inputs: ``categories`` ``(B, columns)`` int64, rows of the table; ``numbers`` ``(B, D)`` float, NaN where
                one is missing, if there are numbers; ``history`` ``(B, length)`` int64, rows of the table, the newest
                event first, then 0, and ``happened`` ``(B, length)`` int64, the observed outcome of each, if there is a
                history.
        """
        record, rest = self._record, list(inputs)
        categories = self._read(rest.pop(0))
        numbers = rest.pop(0) if record.mean else None
        history, happened = rest if record.max_length else (None, None)
        columns = record.single + sum(record.bags)
        # One lookup for all: a stored table of few bits is read at one place.
        found = self.table(categories if history is None else torch.cat([categories, history], dim=1))
        parts = [found[:, : record.single].flatten(1)]
        start = record.single
        for size in record.bags:
            parts.append(_mean(found[:, start : start + size], (categories[:, start : start + size] != 0)))
            start += size
        if numbers is not None:
            parts += _normalised(numbers, self.mean, self.scale)
        if history is not None and happened is not None:
            parts += self._pooled(found[:, record.target], found[:, columns:], history, happened)
        first = torch.cat(parts, dim=1)
        x = self.dropout(first)
        first = x
        for cross in self.crosses:
            x = cross(first, x)
        for layer in self.layers:
            x = self.dropout(F.relu(layer(x)))
        return x

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, 1)``."""
        return self.output(hidden)

    def copied_scorer(self) -> nn.Module:
        """The last layer."""
        return copy.deepcopy(self.output)

    def _read(self, categories: torch.Tensor) -> torch.Tensor:
        """The columns ``(B, single + bags)`` that are read."""
        record, many = self._record, sum(self._record.bags)
        if record.columns == record.single + many:
            return categories
        start = record.single + record.passed_over
        return torch.cat([categories[:, : record.single], categories[:, start : start + many]], dim=1)

    def _pooled(
        self, target: torch.Tensor, events: torch.Tensor, history: torch.Tensor, happened: torch.Tensor
    ) -> list[torch.Tensor]:
        """The history as vectors, how long it is, and the share of yes in it."""
        assert self.outcome is not None
        mask = (history != 0).to(events.dtype)
        yes = happened.to(events.dtype) * mask
        count = mask.sum(1, keepdim=True)
        divisor = count.clamp(min=1)
        if self.attention is None:
            weights = torch.stack([yes, mask - yes], dim=1) / divisor.unsqueeze(1)
            pooled = torch.bmm(weights, events)
        else:
            weights = self.attention(target, events, mask)
            # The events' outcomes are added after the sum: two products with (heads, length) instead of a third
            # tensor of (B, length, dim).
            share = torch.bmm(weights, torch.stack([mask - yes, yes], dim=2))
            pooled = torch.bmm(weights, events) + share @ self.outcome
        length = torch.log1p(count) * 0.25
        return [pooled.flatten(1), yes.sum(1, keepdim=True) / divisor, length]

    @property
    def groups(self) -> list[Group]:
        """Channels of the attention, ranks of the crosses, and channels of the hidden layers."""
        record, found = self._record, []
        if self.attention is not None:
            parts = [Slice(f"attention.{name}", 0) for name in ("query.weight", "query.bias", "key", "product")]
            found.append(
                Group(
                    "attention",
                    "ffn",
                    record.attention_hidden,
                    (*parts, Slice("attention.output.weight", 1)),
                    ("attention_hidden",),
                )
            )
        for number, rank in enumerate(record.cross_ranks):
            both = (Slice(f"crosses.{number}.inner.weight", 0), Slice(f"crosses.{number}.outer.weight", 1))
            found.append(Group(f"crosses.{number}", "ffn", rank, both, ("cross_ranks", number)))
        return found + hidden_layer_groups(record.hidden, "output")

    @property
    def served_inputs(self) -> tuple[ServedInput, ...]:
        """As :meth:`encode` takes them."""
        record = self._record
        found = [ServedInput("categories", torch.int64, (2, record.columns), {0: "batch"})]
        if record.mean:
            found.append(ServedInput("numbers", torch.float32, (2, len(record.mean)), {0: "batch"}))
        if record.max_length:
            free = {0: "batch", 1: "length"}
            found += [ServedInput(name, torch.int64, (2, 2), free) for name in ("history", "happened")]
        return tuple(found)

    def for_serving(self) -> nn.Module:
        """See :func:`served_form`."""
        return served_form(self, numbers=bool(self._record.mean), history=self._record.max_length > 0)


def _mean(rows: torch.Tensor, is_there: torch.Tensor) -> torch.Tensor:
    weight = is_there.to(rows.dtype)
    return (rows * weight.unsqueeze(-1)).sum(1) / weight.sum(1, keepdim=True).clamp(min=1)


def _normalised(numbers: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor) -> list[torch.Tensor]:
    """The numbers, 0 where one is missing, and 1 where one is."""
    missing = torch.isnan(numbers)
    values = ((numbers - mean) / scale).clamp(-_CLIP, _CLIP)
    return [torch.where(missing, torch.zeros_like(values), values), missing.to(values.dtype)]
