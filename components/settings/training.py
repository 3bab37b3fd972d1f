"""``optimization`` of a network, and ``scenarios.*.trainer``: how it is trained and on what."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from components.settings.base import Settings

# What Recstill itself gives to the Trainer; a second value from params.yaml could only contradict it.
_OURS = {
    "callbacks",
    "default_root_dir",
    "enable_checkpointing",
    "enable_model_summary",
    "enable_progress_bar",
    "fast_dev_run",
    "gradient_clip_algorithm",
    "gradient_clip_val",
    "logger",
    "max_epochs",
    "num_sanity_val_steps",
    "plugins",
    "reload_dataloaders_every_n_epochs",
    "use_distributed_sampler",
}


class OptimizationSettings(Settings):
    """AdamW with linear warm-up and a cosine decay, stopped early on the primary measure of the validation points."""

    kind: Literal["adamw"] = "adamw"
    """How it is trained."""
    max_epochs: int = Field(default=30, ge=1)
    """Passes over all prediction points at most."""
    patience: int = Field(default=5, ge=1)
    """Validations without a better figure before training stops; the best weights are kept."""
    batch_size: int = Field(default=64, ge=1)
    """Windows of full length a step; of shorter ones as many more as have no more positions together."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay of matrices (not of biases and norms)."""
    warmup_share: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    final_learning_rate_share: float = Field(default=0.05, ge=0, le=1)
    """Learning rate at the end of the cosine, as a share of the peak."""
    adam_beta2: float = Field(default=0.98, ge=0, lt=1)
    """Decay of AdamW's second moment."""
    average_decay: float = Field(default=0.99, ge=0, lt=1)
    """Decay a step of the moving average of the weights, which is what is validated and kept. 0: no average."""
    gradient_clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of a hard label that is spread over the catalogue."""
    full_softmax_up_to: int = Field(default=50_000, ge=1)
    """Without a teacher catalogues up to this many items train with the full softmax, larger ones with a sampled one.
    With one the losses say what is sampled: ``sampled_cross_entropy``, ``sampled_divergence``."""
    negatives: int = Field(default=2048, ge=1)
    """Items drawn a step for the sampled softmax, with the logQ correction."""


class TrainerSettings(Settings):
    """Passed to Lightning's Trainer as it is; any further argument of the Trainer may be added."""

    model_config = ConfigDict(extra="allow")

    accelerator: str = "cpu"
    """``cpu``, ``gpu``, ``auto``: as Lightning names them."""
    devices: int | str | list[int] = 1
    """How many, or which, devices."""
    num_nodes: int = Field(default=1, ge=1)
    """How many machines."""
    strategy: str = "auto"
    """``auto``, ``ddp``, ``fsdp``: as Lightning names them."""
    precision: str = "32-true"
    """``32-true``, ``bf16-mixed``: as Lightning names them."""

    @model_validator(mode="after")
    def _leaves_ours_alone(self) -> TrainerSettings:
        clash = sorted(_OURS & set(self.model_extra or {}))
        if clash:
            raise ValueError(f"{', '.join(clash)} is set by Recstill itself; see `optimization`")
        return self
