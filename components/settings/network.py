"""``network`` of a teacher or student: the shape that it starts with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from components.settings.base import Settings


class CausalTransformerSettings(Settings):
    """A causal transformer over item histories (SASRec, Kang & McAuley 2018, with pre-norm blocks)."""

    kind: Literal["causal_transformer"] = "causal_transformer"
    """The architecture."""
    dim: int = Field(default=64, ge=4)
    """Model width: the size of an item's row."""
    blocks: int = Field(default=2, ge=1)
    """Number of transformer blocks."""
    heads: int = Field(default=2, ge=1)
    """Attention heads a block; ``dim`` is divided among them."""
    ffn_dim: int = Field(default=256, ge=4)
    """Hidden channels of each block's feed-forward part."""
    max_length: int = Field(default=50, ge=2)
    """Events of a history that the network sees: the newest ones."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout on embeddings and on what each block adds."""
    tied: bool = True
    """Score items with the table that also embeds them."""

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> CausalTransformerSettings:
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        return self


NetworkSettings = CausalTransformerSettings
"""Any of them."""
