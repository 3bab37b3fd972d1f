"""``scenarios.*.pruning``: what is cut out of the student, and how it recovers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.settings.base import Settings
from components.settings.quantization import QuantizationAwareSettings
from components.settings.training import OptimizationSettings


class PruningSettings(Settings):
    """Structured pruning: whole channels, heads and widths go, and the network is rebuilt smaller."""

    importance: Literal["magnitude", "taylor", "sparsity", "random"] = "taylor"
    """What decides: L2 norm of the weights; first-order effect on the loss (Molchanov et al. 2019); norm after
    a group-lasso phase; or chance, as the control."""
    ffn_ratio: float = Field(default=0.5, ge=0, lt=1)
    """Share of each block's feed-forward channels that is removed."""
    heads_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of each block's attention heads that is removed."""
    width_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the model width that is removed: from the item table, the norms and every linear layer."""
    channels_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of each convolution's channels that is removed."""
    calibration_batches: int = Field(default=20, ge=1)
    """Training batches from which ``taylor`` estimates the loss's sensitivity."""
    sparsity_epochs: int = Field(default=2, ge=1)
    """Epochs of the group-lasso phase of ``sparsity``."""
    sparsity_weight: float = Field(default=1e-3, gt=0)
    """Weight of the group-lasso term of ``sparsity``."""
    quantization_aware: QuantizationAwareSettings | None = None
    """Fine-tuning computes with the weights as a form stores them, so that they get used to it; with all ratios at 0
    too."""
    optimization: OptimizationSettings = OptimizationSettings(max_epochs=6, patience=3, learning_rate=5e-4)
    """Fine-tuning on the cached soft labels afterwards."""
