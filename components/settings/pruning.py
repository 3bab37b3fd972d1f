"""``scenarios.*.pruning``: what is cut out of the student, and how it recovers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from components.settings.base import Settings
from components.settings.quantization import QuantizationAwareSettings
from components.settings.training import OptimizationSettings

_BY_KIND = ("ffn_ratio", "heads_ratio", "head_width_ratio", "width_ratio", "channels_ratio")


class PruningSettings(Settings):
    """Structured pruning: whole channels, heads and widths go, and the network is rebuilt smaller."""

    importance: Literal["magnitude", "taylor", "sparsity", "random"] = "taylor"
    """What decides: L2 norm of the weights; first-order effect on the loss (Molchanov et al. 2019); norm after
    a group-lasso phase; or chance, as the control."""
    ffn_ratio: float = Field(default=0.5, ge=0, lt=1)
    """Share of each block's feed-forward channels that is removed."""
    heads_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of each block's attention heads that is removed."""
    head_width_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the channels of each block's attention heads that is removed, of all its heads alike."""
    width_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of the model width that is removed: from the item table, the norms and every linear layer."""
    channels_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Share of each convolution's channels that is removed."""
    ratios: dict[str, float] = {}
    """Shares of single parts by their name, such as ``blocks.0.ffn``, in the place of that of their kind."""
    multiply_adds_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of the multiply-adds of one request that the pruned student may need. Units of all parts but the widths
    compete for them, in the place of ratios: what is worth least for what it costs goes first."""
    steps: int = Field(default=1, ge=1)
    """Cuts in which all of it is removed, as much in each; each is followed by fine-tuning for its part of
    ``optimization.max_epochs``. 1: one shot."""
    reconstruction: bool = False
    """Whether the linear layers that read what was cut are then fitted, by least squares, to what they gave before:
    the network has less to make up for afterwards, in fewer and smaller steps."""
    calibration_batches: int = Field(default=20, ge=1)
    """Training batches from which ``taylor`` estimates the loss's sensitivity, and ``reconstruction`` what a layer
    gave."""
    sparsity_epochs: int = Field(default=2, ge=1)
    """Epochs of the group-lasso phase of ``sparsity``."""
    sparsity_weight: float = Field(default=1e-3, gt=0)
    """Weight of the group-lasso term of ``sparsity``."""
    quantization_aware: QuantizationAwareSettings | None = None
    """Fine-tuning computes with the weights as a form stores them, so that they get used to it; with all ratios at 0
    too."""
    optimization: OptimizationSettings = OptimizationSettings(max_epochs=6, patience=3, learning_rate=5e-4)
    """Fine-tuning on soft labels afterwards."""
    soft_labels_of: Literal["teacher", "student"] = "teacher"
    """Whose they are: the cached ones of the teacher, beside what users did as ``distillation`` says; or those of the
    student before the cut alone, which this stage makes (Muralidharan et al., "Compact Language Models via Pruning and
    Knowledge Distillation", NeurIPS 2024). What to cut, ``taylor`` and ``sparsity`` find by the teacher's even then."""

    @field_validator("ratios")
    @classmethod
    def _shares(cls, value: dict[str, float]) -> dict[str, float]:
        for name, ratio in value.items():
            if not 0 <= ratio < 1:
                raise ValueError(f"the share of {name} that is removed must be 0 or more and less than 1")
        return value

    @model_validator(mode="after")
    def _one_way_to_say_how_much(self) -> PruningSettings:
        given = [name for name in (*_BY_KIND, "ratios") if name in self.model_fields_set]
        if self.multiply_adds_share is not None and given:
            raise ValueError(f"multiply_adds_share and {', '.join(given)} say how much goes in two ways: give one")
        return self

    @model_validator(mode="after")
    def _an_epoch_a_step(self) -> PruningSettings:
        if self.steps > self.optimization.max_epochs:
            raise ValueError(
                f"steps ({self.steps}) is more than optimization.max_epochs ({self.optimization.max_epochs}), and each "
                "step is followed by an epoch at least: lower steps, or raise max_epochs"
            )
        return self
