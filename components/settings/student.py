"""``scenarios.*.student``."""

from __future__ import annotations

from components.settings.base import Settings
from components.settings.least_squares import OptimizationSection
from components.settings.network import CausalTransformerSettings, NetworkSection
from components.settings.training import OptimizationSettings


class StudentSettings(Settings):
    """The small network, trained twice: from the teacher's soft labels, and alone as a baseline."""

    network: NetworkSection = CausalTransformerSettings(dim=32, blocks=1, ffn_dim=64)
    """Shape before pruning."""
    optimization: OptimizationSettings = OptimizationSettings()
    """How it is trained."""
    without_teacher: OptimizationSection | None = None
    """How it is trained without a teacher, to compare with. None: as with one."""
