"""``scenarios.*.soft_labels``: what of the teacher's distribution is kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.settings.base import Settings


class SoftLabelSettings(Settings):
    """Codec and layout of the soft-label cache."""

    codec: Literal["dense", "top_k_tail"] = "top_k_tail"
    """``dense``: every outcome (small K). ``top_k_tail``: the k largest and the log of the mass that is left."""
    k: int = Field(default=64, ge=1)
    """Outcomes that ``top_k_tail`` stores singly for each point; all of them when there are fewer."""
    rows_per_part: int = Field(default=65_536, ge=1)
    """Prediction points in one part of the cache: what is scored again at most after an interruption."""
