"""``scenarios.*.soft_labels``: what of the teacher's distribution is kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from components.settings.base import Settings


class SoftLabelSettings(Settings):
    """Codec and layout of the soft-label cache."""

    codec: Literal["dense", "logit", "top_k_tail", "sampled", "top_k_sampled"] = "top_k_tail"
    """``dense``: every outcome (small K). ``logit``: one yes or no a row (task ``click``). ``top_k_tail``: the k
    largest and the log of the mass that is left. ``sampled``: k labels drawn without bias, large probabilities always.
    ``top_k_sampled``: the ``head`` largest always, the other labels drawn."""
    k: int = Field(default=64, ge=1)
    """Outcomes that are stored for each point by the last three codecs; all of them when there are fewer."""
    head: int = Field(default=8, ge=0)
    """How many of the k ``top_k_sampled`` takes from the top; the others are drawn."""
    compression: Literal["none", "zstd"] = "none"
    """``zstd`` makes parts smaller in the store; on this machine they lie unpacked."""
    hidden_states: bool = False
    """Store the teacher's last hidden state beside each label, in half precision, for hint losses."""
    calibrate: bool = False
    """Divide the teacher's logits by a temperature that is fitted on the validation events first. It is part of what
    the cache is of."""
    rows_per_part: int = Field(default=65_536, ge=1)
    """Prediction points in one part of the cache at most: what each worker scores again at most after a kill."""

    @model_validator(mode="after")
    def _something_to_draw(self) -> SoftLabelSettings:
        if self.codec == "top_k_sampled" and self.head >= self.k:
            raise ValueError(f"head ({self.head}) must be below k ({self.k}): nothing is left to draw")
        return self
