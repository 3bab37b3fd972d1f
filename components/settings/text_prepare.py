"""``scenarios.*.prepare`` of texts with a label."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from components.settings.base import Settings


class TextPrepareSettings(Settings):
    """Split of the texts, in the same shares for every label, and the tokenizer, trained on the training texts."""

    kind: Literal["texts"]
    """Texts with a label."""
    validation_share: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the texts that training is stopped by."""
    test_share: float = Field(default=0.2, gt=0, lt=0.5)
    """Share of the texts that no training sees; not used where the source has its own test."""
    seed: int = Field(default=0, ge=0)
    """Of the split."""
    vocabulary: int = Field(default=16_000, ge=64)
    """Tokens at most. Frequent words are a token each, rarer ones are put together from pieces; a Chinese character
    is a word of its own."""
    min_frequency: int = Field(default=2, ge=1)
    """Words and pieces that training holds less often are no token."""
    max_tokens: int = Field(default=512, ge=8)
    """Tokens of a text that are kept: the first ones."""
    tokenizer: str | None = None
    """A ``tokenizer.json`` to use in the place of a new one, for a teacher whose weights were trained with it; relative
    to the checkout. None: train one."""

    @model_validator(mode="after")
    def _leaves_training_texts(self) -> TextPrepareSettings:
        if self.validation_share + self.test_share > 0.8:
            raise ValueError("validation_share and test_share together leave less than a fifth for training")
        return self
