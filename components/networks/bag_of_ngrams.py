"""A bag of n-grams: rows of a table added up, then one linear layer.

After Joulin et al., "Bag of Tricks for Efficient Text Classification", 2017, with the sum divided by the root of the
number of n-grams in the place of the mean: long texts then speak louder than short ones, as they do with tf-idf.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import nn

from components.networks.contract import RecordedNetwork, ServedInput
from components.networks.text_serving import ServedText, text_inputs
from components.networks.units import Group, Slice

# Any two odd numbers spread pairs of tokens over the buckets; these are primes.
_FIRST, _SECOND = 1_000_003, 7_919


class BagOfNgramsRecord(BaseModel):
    """Everything that is needed to rebuild the network for its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["bag_of_ngrams"] = "bag_of_ngrams"
    outcomes: int
    vocabulary: int
    buckets: int
    """Rows that pairs of neighbouring tokens share by their hash; 0: single tokens only."""
    dim: int
    max_length: int
    dropout: float
    token_dropout: float


class Bag(nn.Module):
    """From tokens to one vector a text.

    Args:
        vocabulary: Tokens.
        buckets: Rows for pairs of tokens.
        dim: Width of a row.
        token_dropout: Share of the tokens that training leaves out of each text.
    """

    def __init__(self, vocabulary: int, buckets: int, dim: int, token_dropout: float) -> None:
        super().__init__()
        self.vocabulary, self.buckets, self.token_dropout = vocabulary, buckets, token_dropout
        self.table = nn.Embedding(vocabulary + buckets, dim)
        nn.init.normal_(self.table.weight, std=0.1)

    def weigh(self, idf: torch.Tensor) -> None:
        """Scale the first weights by the rarity of the tokens ``(vocabulary,)``; pairs begin as they are."""
        with torch.no_grad():
            self.table.weight[: self.vocabulary] *= (idf / idf.mean())[:, None]

    def forward(self, tokens: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """Vectors ``(batch, dim)`` of tokens ``(batch, length)`` int64, padded on the right."""
        counted = kept_tokens(tokens, length, self.token_dropout if self.training else 0.0)
        ids = tokens
        if self.buckets:
            pairs = (tokens[:, :-1] * _FIRST + tokens[:, 1:] * _SECOND) % self.buckets + self.vocabulary
            ids = torch.cat([ids, pairs], dim=1)
            counted = torch.cat([counted, counted[:, :-1] & counted[:, 1:]], dim=1)
        weights = counted.to(self.table.weight.dtype)
        total = (weights[:, None] @ F.embedding(ids, self.table.weight)).squeeze(1)
        return total / weights.sum(1, keepdim=True).clamp(min=1.0).sqrt()


def kept_tokens(tokens: torch.Tensor, length: torch.Tensor, dropout: float) -> torch.Tensor:
    """Which tokens count, ``(batch, length)`` bool: none beyond a text's length, and always its first.

    Args:
        tokens: ``(batch, length)``.
        length: ``(batch,)``; 0 counts as 1.
        dropout: Share that is left out by chance.
    """
    place = torch.arange(tokens.shape[1], device=tokens.device)
    counted = place < length.clamp(min=1)[:, None]
    if dropout:
        counted = counted & ((torch.rand(tokens.shape, device=tokens.device) >= dropout) | (place == 0))
    return counted


class BagOfNgrams(RecordedNetwork[BagOfNgramsRecord]):
    """From the tokens of texts to logits ``(N, K)``."""

    def __init__(self, record: BagOfNgramsRecord, idf: torch.Tensor | None = None) -> None:
        super().__init__(record)
        self.bag = Bag(record.vocabulary, record.buckets, record.dim, record.token_dropout)
        self.last = nn.Linear(record.dim, record.outcomes)
        self.dropout = nn.Dropout(record.dropout)
        if idf is not None:
            self.bag.weigh(idf)

    def encode(self, tokens: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """Hidden states ``(N, dim)`` of tokens ``(N, length)`` int64, padded on the right."""
        return self.dropout(self.bag(tokens, length))

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, K)``."""
        return self.last(hidden)

    def copied_scorer(self) -> nn.Module:
        """The last layer."""
        return copy.deepcopy(self.last)

    @property
    def groups(self) -> list[Group]:
        """The width of the table."""
        slices = (Slice("bag.table.weight", 1), Slice("last.weight", 1))
        return [Group("width", "width", self._record.dim, slices, ("dim",))]

    @property
    def served_inputs(self) -> tuple[ServedInput, ...]:
        """See :func:`text_inputs`."""
        return text_inputs()

    def for_serving(self) -> nn.Module:
        """See :class:`ServedText`."""
        return ServedText(self)
