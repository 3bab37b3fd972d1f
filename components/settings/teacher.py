"""``scenarios.*.teacher``."""

from __future__ import annotations

from pydantic import Field, model_validator

from components.settings.base import Settings
from components.settings.distillation import DistillationSettings
from components.settings.least_squares import LeastSquaresSettings, OptimizationSection
from components.settings.network import CausalTransformerSettings, NetworkSection
from components.settings.soft_labels import SoftLabelSettings
from components.settings.training import OptimizationSettings

_OF_SEVERAL = ("first_members", "first_optimization", "distillation", "soft_labels")


class TeacherSettings(Settings):
    """The large network, or an ensemble of several that counts as one teacher."""

    network: NetworkSection = CausalTransformerSettings()
    """Shape of each member."""
    optimization: OptimizationSection = OptimizationSettings()
    """How each member is trained."""
    members: int = Field(default=1, ge=1, le=32)
    """Networks of the ensemble; they differ by their seed, and their probabilities are averaged."""
    generations: int = Field(default=1, ge=1, le=8)
    """How often a teacher is trained: the networks of each further generation learn from the soft labels of the one
    before, and the last is the teacher (Furlanello et al., "Born-Again Neural Networks", ICML 2018)."""
    first_members: int | None = Field(default=None, ge=1, le=32)
    """Networks of each generation before the last. None: as many as the last has."""
    first_optimization: OptimizationSettings | None = None
    """How the networks of the first generation are trained, which have no labels to learn from and so may need longer,
    in smaller steps. None: as those after it."""
    distillation: DistillationSettings = DistillationSettings()
    """The loss of the second generation and of those after it."""
    soft_labels: SoftLabelSettings | None = None
    """What of a generation the next one learns from. None: everything of up to 64 outcomes, of more the 64 largest and
    their rest, of a yes or no its logit."""
    warm_start: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Digest of an earlier teacher in the object store to start from, of the same shape; ``recstill retrain`` sets it.
    The first generation starts from it, later ones start anew. None: start anew."""

    def members_of(self, generation: int) -> int:
        """How many networks a generation has; the first one is 1."""
        if generation == self.generations or self.first_members is None:
            return self.members
        return self.first_members

    def optimization_of(self, generation: int) -> OptimizationSettings | LeastSquaresSettings:
        """How the networks of a generation are trained; the first one is 1."""
        if generation > 1 or self.first_optimization is None:
            return self.optimization
        return self.first_optimization

    @model_validator(mode="after")
    def _generations_learn_from_labels(self) -> TeacherSettings:
        if self.generations > 1 and isinstance(self.optimization, LeastSquaresSettings):
            raise ValueError(
                f"generations is {self.generations}, and optimization.kind {self.optimization.kind} learns from no "
                "soft labels: set generations to 1, or optimization.kind to adamw"
            )
        given = [name for name in _OF_SEVERAL if name in self.model_fields_set and getattr(self, name) is not None]
        if self.generations == 1 and given:
            raise ValueError(
                f"{', '.join(given)}: only for a teacher of several generations; set generations to 2 or more, or take "
                "it out"
            )
        return self
