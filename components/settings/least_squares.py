"""How networks are trained: by AdamW, or a matrix factorization in closed form."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from components.settings.base import Settings
from components.settings.training import OptimizationSettings


class LeastSquaresSettings(Settings):
    """Alternating least squares over all pairs of users and items (Hu, Koren and Volinsky 2008), for a
    ``matrix_factorization``; stopped early on the primary measure of the validation points."""

    kind: Literal["alternating_least_squares"]
    """How it is trained."""
    max_epochs: int = Field(default=12, ge=1)
    """Sweeps over users and items at most."""
    patience: int = Field(default=2, ge=1)
    """Validations without a better figure before training stops; the best weights are kept."""
    unobserved: float = Field(default=0.01, gt=0)
    """Weight of a pair that was not observed, against 1 of one that was."""
    regularization: float = Field(default=0.003, gt=0)
    """Of a row, for each unit of weight in its sum of squares (Rendle, Krichene, Zhang and Koren, "Revisiting the
    Performance of iALS on Item Recommendation Benchmarks", RecSys 2022, equation 7 with an exponent of 1)."""


def _kind_of(value: Any) -> str:
    return str(value.get("kind", "adamw") if isinstance(value, dict) else getattr(value, "kind", "adamw"))


OptimizationSection = Annotated[
    Annotated[OptimizationSettings, Tag("adamw")] | Annotated[LeastSquaresSettings, Tag("alternating_least_squares")],
    Discriminator(_kind_of),
]
"""As it stands in params.yaml; AdamW need not say what it is."""
