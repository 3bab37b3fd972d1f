"""``scenarios.*.prepare`` of samples with a label."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from components.settings.base import Settings


class SamplePrepareSettings(Settings):
    """Split of the samples, in the same shares for every label."""

    kind: Literal["samples"]
    """Samples with a label."""
    validation_share: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the samples that training is stopped by."""
    test_share: float = Field(default=0.2, gt=0, lt=0.5)
    """Share of the samples that no training sees; not used where the source has its own test samples."""
    seed: int = Field(default=0, ge=0)
    """Of the split."""
    moved_copies: int = Field(default=0, ge=0, le=4)
    """Of images: each training image is learned from again at every place that so many steps of a pixel up, down, left
    or right reach, 1: four copies, 2: twelve. The teacher labels every copy. 0: none."""

    @model_validator(mode="after")
    def _leaves_training_samples(self) -> SamplePrepareSettings:
        if self.validation_share + self.test_share > 0.8:
            raise ValueError("validation_share and test_share together leave less than a fifth for training")
        return self
