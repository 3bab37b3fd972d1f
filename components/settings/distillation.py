"""``scenarios.*.distillation``: the loss of a student, and of the fine-tuning after pruning."""

from __future__ import annotations

from pydantic import Field, model_validator

from components.settings.base import Settings


class DistillationSettings(Settings):
    """L = lambda_hard * CE(hard label) + lambda_soft * T^2 * KL(teacher || student), both at temperature T.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2.
    """

    lambda_hard: float = Field(default=0.2, ge=0)
    """Weight of the cross entropy with what the user really did."""
    lambda_soft: float = Field(default=0.8, ge=0)
    """Weight of the divergence from the teacher's distribution."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of both distributions in the soft term."""

    @model_validator(mode="after")
    def _some_loss(self) -> DistillationSettings:
        if self.lambda_hard + self.lambda_soft == 0:
            raise ValueError("lambda_hard and lambda_soft are both 0: there is nothing to learn from")
        return self
