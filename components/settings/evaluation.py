"""``scenarios.*.evaluation``, ``budget`` and ``gate``: what is measured, and what may ship."""

from __future__ import annotations

from pydantic import Field, model_validator

from components.settings.base import Settings


class EvaluationSettings(Settings):
    """How variants are measured."""

    bootstrap_samples: int = Field(default=2000, ge=100)
    """Resamples of the users for each 95 % interval."""
    bootstrap_seed: int = Field(default=0, ge=0)
    """Seed of the resamples."""
    latency_requests: int = Field(default=300, ge=10)
    """Requests of batch 1 that are timed for each variant."""
    throughput_batches: int = Field(default=20, ge=2)
    """Batches of 64 that are timed for each variant."""
    knn_neighbours: int = Field(default=50, ge=1)
    """Neighbours of the item-kNN baseline."""


class BudgetSettings(Settings):
    """What the shipped model may cost. None: no limit."""

    max_bytes: int | None = Field(default=None, gt=0)
    """Bytes of the model file."""
    max_bytes_ratio: float | None = Field(default=None, gt=0)
    """Bytes of the model file as a share of one teacher member's fp32 weights."""
    max_p95_ms: float | None = Field(default=None, gt=0)
    """95th percentile of the latency at batch 1, one thread, in milliseconds."""
    max_latency_ratio: float | None = Field(default=None, gt=0)
    """Median latency at batch 1 as a share of one teacher member's in torch eager, in the same run."""


class Bounds(Settings):
    """Between what a figure has to lie; at least one of the two is given."""

    min: float | None = None
    """The least that it may be. None: any."""
    max: float | None = None
    """The greatest that it may be. None: any."""

    @model_validator(mode="after")
    def _bound_something(self) -> Bounds:
        if self.min is None and self.max is None:
            raise ValueError("give min, max, or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max}): nothing lies between them")
        return self


class GateSettings(Settings):
    """What the shipped model must be worth."""

    min_retention: float = Field(default=0.95, gt=0)
    """The task's primary measure (NDCG@10, accuracy, AUC) as a share of the whole teacher's."""
    min_gain_over_baseline: float | None = None
    """The primary measure above that of the same student without a teacher, at least this much. None: not required."""
    figures: dict[str, Bounds] = {}
    """Bounds of further measures of the task by their keys in metrics.json, such as ``calibration: {min: 0.99, max:
    1.01}`` where what ships tells probabilities."""
