"""A transformer encoder over the tokens of a text, beside a bag of its n-grams: deep and wide.

The two parts are those of Cheng et al., "Wide & Deep Learning for Recommender Systems", 2016. On a few thousand texts
the encoder alone stays behind a linear model of the words; with the bag it has that model within it.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import nn

from components.networks.bag_of_ngrams import Bag, kept_tokens
from components.networks.causal_transformer import Block, BlockRecord
from components.networks.causal_transformer_units import block_groups
from components.networks.contract import RecordedNetwork, ServedInput
from components.networks.text_serving import ServedText, text_inputs
from components.networks.units import Group

# Far below any score, and finite: a masked key's weight is exactly 0 after the softmax, and never NaN.
_HIDDEN = -1e9


class TextEncoderRecord(BaseModel):
    """Everything that is needed to rebuild the network for its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["text_encoder"] = "text_encoder"
    outcomes: int
    vocabulary: int
    buckets: int
    bag_dim: int
    dim: int
    max_length: int
    encoded: int
    """Tokens that the transformer sees: the first ones. The bag sees ``max_length``."""
    dropout: float
    token_dropout: float
    blocks: tuple[BlockRecord, ...]


class TextEncoder(RecordedNetwork[TextEncoderRecord]):
    """From the tokens of texts to logits ``(N, K)``."""

    def __init__(self, record: TextEncoderRecord, idf: torch.Tensor | None = None) -> None:
        super().__init__(record)
        self.token = nn.Embedding(record.vocabulary, record.dim)
        self.position = nn.Parameter(torch.empty(record.encoded, record.dim))
        self.blocks = nn.ModuleList(Block(record.dim, block, record.dropout) for block in record.blocks)
        self.norm = nn.LayerNorm(record.dim)
        self.bag = Bag(record.vocabulary, record.buckets, record.bag_dim, record.token_dropout)
        self.last = nn.Linear(record.bag_dim + 2 * record.dim, record.outcomes)
        self.dropout = nn.Dropout(record.dropout)
        nn.init.normal_(self.token.weight, std=0.1)
        nn.init.normal_(self.position, std=0.02)
        if idf is not None:
            self.bag.weigh(idf)

    @property
    def hidden_dim(self) -> int:
        """Bag, mean and maximum."""
        return self.last.in_features

    def encode(self, tokens: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """Hidden states ``(N, hidden_dim)`` of tokens ``(N, length)`` int64, padded on the right."""
        bag = self.bag(tokens, length)
        first = tokens[:, : self._record.encoded]
        counted = kept_tokens(first, length, self._record.token_dropout if self.training else 0.0)
        x = self.dropout(F.embedding(first, self.token.weight) + self.position[: first.shape[1]])
        hidden = torch.zeros(counted.shape, dtype=x.dtype, device=x.device).masked_fill(~counted, _HIDDEN)
        # A row for each query: ONNX Runtime's Attention spreads none by itself.
        mask = hidden[:, None, None].expand(-1, -1, first.shape[1], -1)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        weights = counted.to(x.dtype)
        mean = (weights[:, None] @ x).squeeze(1) / weights.sum(1, keepdim=True)
        largest = (x + hidden[:, :, None]).amax(1)
        return self.dropout(torch.cat([bag, mean, largest], dim=1))

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, K)``."""
        return self.last(hidden)

    def copied_scorer(self) -> nn.Module:
        """The last layer."""
        return copy.deepcopy(self.last)

    @property
    def groups(self) -> list[Group]:
        """Feed-forward channels, heads and their width of each block."""
        return [group for number, block in enumerate(self.record()["blocks"]) for group in block_groups(number, block)]

    @property
    def served_inputs(self) -> tuple[ServedInput, ...]:
        """See :func:`text_inputs`."""
        return text_inputs()

    def for_serving(self) -> nn.Module:
        """See :class:`ServedText`."""
        return ServedText(self)
