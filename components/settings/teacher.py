"""``scenarios.*.teacher``."""

from __future__ import annotations

from pydantic import Field

from components.settings.base import Settings
from components.settings.least_squares import OptimizationSection
from components.settings.network import CausalTransformerSettings, NetworkSection
from components.settings.training import OptimizationSettings


class TeacherSettings(Settings):
    """The large network, or an ensemble of several that counts as one teacher."""

    network: NetworkSection = CausalTransformerSettings()
    """Shape of each member."""
    optimization: OptimizationSection = OptimizationSettings()
    """How each member is trained."""
    members: int = Field(default=1, ge=1, le=32)
    """Networks of the ensemble; they differ by their seed, and their probabilities are averaged."""
    warm_start: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Digest of an earlier teacher in the object store to start from, of the same shape; ``recstill retrain`` sets it.
    None: start anew."""
