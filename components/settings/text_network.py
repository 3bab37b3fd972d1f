"""``network`` of a teacher or student that reads texts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.settings.base import Settings


class BagOfNgramsSettings(Settings):
    """Rows of a table for tokens, and for pairs of them, added up (Joulin et al. 2017)."""

    kind: Literal["bag_of_ngrams"]
    """The architecture."""
    dim: int = Field(default=32, ge=4)
    """Width of a row."""
    buckets: int = Field(default=0, ge=0)
    """Rows that pairs of neighbouring tokens share by their hash. 0: single tokens only."""
    max_length: int = Field(default=256, ge=8)
    """Tokens of a text that the network sees: the first ones."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the sum."""
    token_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the tokens that training leaves out of each text."""


class TextEncoderSettings(Settings):
    """A transformer encoder, and beside it a bag of n-grams."""

    kind: Literal["text_encoder"]
    """The architecture."""
    dim: int = Field(default=64, ge=4)
    """Width of the transformer."""
    blocks: int = Field(default=2, ge=1)
    """Transformer blocks."""
    heads: int = Field(default=4, ge=1)
    """Attention heads a block; ``dim`` is divided among them."""
    ffn_dim: int = Field(default=128, ge=4)
    """Hidden channels of each block's feed-forward part."""
    encoded: int = Field(default=128, ge=8)
    """Tokens that the transformer sees: the first ones."""
    bag_dim: int = Field(default=32, ge=4)
    """Width of a row of the bag."""
    buckets: int = Field(default=0, ge=0)
    """Rows of the bag that pairs of neighbouring tokens share by their hash. 0: single tokens only."""
    max_length: int = Field(default=256, ge=8)
    """Tokens that the bag sees: the first ones."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout on embeddings, on what each block adds, and before the last layer."""
    token_dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the tokens that training leaves out of each text, for bag and transformer apart."""

    @model_validator(mode="after")
    def _fits_itself(self) -> TextEncoderSettings:
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        if self.encoded > self.max_length:
            raise ValueError(f"encoded ({self.encoded}) must not be above max_length ({self.max_length})")
        return self


class HuggingFaceSettings(Settings):
    """A pretrained encoder of Hugging Face's ``transformers`` from a folder on this machine, as a teacher: the mean of
    its last states over the tokens, and a linear layer. Its tokenizer has to be ``prepare.tokenizer``."""

    kind: Literal["hugging_face"]
    """The architecture is that of ``config.json`` in the folder."""
    path: str
    """Folder with ``config.json`` and ``model.safetensors``, relative to the checkout."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of ``model.safetensors``: other weights are another teacher, and are refused."""
    max_length: int = Field(default=256, ge=8)
    """Tokens of a text that the network sees: the first ones."""
    before: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Tokens that stand before every text, by number: BERT's [CLS]."""
    after: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Tokens that stand after every text, by number: BERT's [SEP]."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout before the last layer; within the encoder it is what ``config.json`` says."""
