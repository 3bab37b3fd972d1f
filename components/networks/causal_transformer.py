"""A causal transformer over item histories, of any width per layer.

Pre-norm blocks with separate q, k, v and o linears (so that heads can be cut out), an explicit attention scale (so
that cutting into a head does not change it) and, when tied, one table that embeds items and scores them. Histories
are padded on the right: the causal mask is then the only mask that is needed.

After Kang & McAuley, "Self-Attentive Sequential Recommendation" (2018).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import nn

from components.networks.causal_transformer_serving import ServedCausalTransformer, is_multiplied_out
from components.networks.causal_transformer_units import causal_transformer_groups
from components.networks.contract import RecordedNetwork, ServedInput
from components.networks.item_features import ItemFeaturesRecord, ItemFeatureSums
from components.networks.units import Group


class BlockRecord(BaseModel):
    """The widths of one block."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: int
    head_dim: int
    ffn_dim: int
    scale: float
    """Factor on the attention scores; stays what it was when heads are narrowed."""


class CausalTransformerRecord(BaseModel):
    """Everything that is needed to rebuild the network for its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["causal_transformer"] = "causal_transformer"
    items: int
    max_length: int
    dim: int
    tied: bool
    dropout: float
    embedding_scale: float
    """Factor on item rows when they are embedded; stays what it was when the model width is cut."""
    blocks: tuple[BlockRecord, ...]
    features: ItemFeaturesRecord | None = None
    """Of items. None: they are only themselves."""


class Attention(nn.Module):
    """Multi-head self-attention, causal unless a mask says otherwise; ``heads * head_dim`` need not equal ``dim``."""

    def __init__(self, dim: int, record: BlockRecord) -> None:
        super().__init__()
        inner = record.heads * record.head_dim
        self.heads, self.scale = record.heads, record.scale
        self.q = nn.Linear(dim, inner)
        self.k = nn.Linear(dim, inner)
        self.v = nn.Linear(dim, inner)
        self.o = nn.Linear(inner, dim)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """``(batch, length, dim)`` to ``(batch, length, dim)``; ``mask`` is added to the scores, and finite."""
        q, k, v = (self._split(linear(x)) for linear in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=self.scale)
        return self.o(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Attention, then a feed-forward part, each on a normalised input and added to it."""

    def __init__(self, dim: int, record: BlockRecord, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, record)
        self.ffn_norm = nn.LayerNorm(dim)
        self.ffn_in = nn.Linear(dim, record.ffn_dim)
        self.ffn_out = nn.Linear(record.ffn_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """``(batch, length, dim)`` to ``(batch, length, dim)``; see :class:`Attention` for ``mask``."""
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        return x + self.dropout(self.ffn_out(F.gelu(self.ffn_in(self.ffn_norm(x)))))


class CausalTransformer(RecordedNetwork[CausalTransformerRecord]):
    """From a batch of right-padded histories to logits over the catalogue at each valid position."""

    def __init__(self, record: CausalTransformerRecord) -> None:
        super().__init__(record)
        self.item = nn.Embedding(record.items, record.dim)
        self.position = nn.Embedding(record.max_length, record.dim)
        self.blocks = nn.ModuleList(Block(record.dim, block, record.dropout) for block in record.blocks)
        self.norm = nn.LayerNorm(record.dim)
        self.output = None if record.tied else nn.Linear(record.dim, record.items, bias=False)
        self.dropout = nn.Dropout(record.dropout)
        self.apply(_initialised)
        if self.output is not None:
            nn.init.normal_(self.output.weight, std=0.02)
        # Last, so that all else begins with the same weights as without.
        self.features = None if record.features is None else ItemFeatureSums(record.items, record.dim, record.features)

    def record(self) -> dict[str, Any]:
        """The architecture record; without features it says nothing of them."""
        return self._record.model_dump(mode="json", exclude_none=True)

    @property
    def outcomes(self) -> int:
        """Size of the catalogue."""
        return self._record.items

    @property
    def table(self) -> torch.Tensor:
        """The table ``(items, dim)`` that embeds: items' own rows, and what their features add."""
        return self.item.weight if self.features is None else self.item.weight + self.features()

    @property
    def head(self) -> torch.Tensor:
        """The table ``(items, dim)`` that scores."""
        return self.table if self.output is None else self.output.weight

    def encode(self, items: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Hidden states of the valid positions.

        Args:
            items: ``(batch, length)`` int64 item indices, padded on the right with any index.
            valid: ``(N,)`` int64 positions in the flattened ``(batch * length)`` that count.

        Returns:
            ``(N, dim)``.
        """
        return self.hidden(items).flatten(0, 1).index_select(0, valid)

    def hidden(self, items: torch.Tensor) -> torch.Tensor:
        """Hidden states ``(batch, length, dim)`` of every position, after the last norm."""
        positions = torch.arange(items.shape[1], device=items.device)
        x = F.embedding(items, self.table) * self._record.embedding_scale + self.position(positions)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, items)`` of hidden states ``(N, dim)``."""
        return F.linear(hidden, self.head)

    @property
    def served_inputs(self) -> tuple[ServedInput, ...]:
        """Histories, padded on the right, and how much of each counts."""
        # Neither 0 nor 1, which torch.export would take for constants.
        return (
            ServedInput("items", torch.int64, (2, 2), {0: "batch", 1: "length"}),
            ServedInput("length", torch.int64, (2,), {0: "batch"}),
        )

    @property
    def groups(self) -> list[Group]:
        """See :func:`causal_transformer_groups`."""
        return causal_transformer_groups(self.record())

    def added_to(self, name: str) -> torch.Tensor | None:
        """Features add to the items' rows."""
        return None if self.features is None or name != "item.weight" else self.features()

    @property
    def multiplied_out(self) -> frozenset[str]:
        """The last block's attention, where its heads are wide."""
        if not is_multiplied_out(self._record.blocks[-1].head_dim, self._record.dim):
            return frozenset()
        return frozenset(f"blocks.{len(self.blocks) - 1}.attention.{part}.weight" for part in "qkvo")

    @property
    def row_keys(self) -> dict[str, torch.Tensor]:
        """Of the features' rows."""
        return {} if self.features is None else {"features.weight": self.features.keys}

    def folded(self) -> CausalTransformer:
        """With one table of items, that has what their features add."""
        if self.features is None:
            return self
        with torch.device("meta"):
            plain = CausalTransformer(self._record.model_copy(update={"features": None}))
        own = self.state_dict()
        weights = {name: own[name].clone() for name in plain.state_dict()}
        plain.load_state_dict({**weights, "item.weight": self.table.detach()}, assign=True)
        return plain.train(self.training)

    def for_serving(self) -> nn.Module:
        """See :class:`ServedCausalTransformer`."""
        blocks = self._record.blocks
        return ServedCausalTransformer(
            self.folded().state_dict(),
            heads=[block.heads for block in blocks],
            scales=[block.scale for block in blocks],
            embedding_scale=self._record.embedding_scale,
        ).eval()


def _initialised(module: nn.Module) -> None:
    if isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
