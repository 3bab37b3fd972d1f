"""The terms of ``scenarios.*.distillation.losses``: what each kind is called, and what it can be told.

The formulas are in ``components/training/losses``. What a kind needs of the soft-label cache stands here, so that a
scenario that cannot work is refused before anything is trained.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from components.settings.base import Settings

LISTS = frozenset({"dense", "top_k_tail"})
"""Codecs from which the teacher's opinion of any single outcome is known, or known as a share of a tail."""
ORDERED = LISTS | {"top_k_sampled"}
"""Codecs with the teacher's best outcomes in order."""
CATALOGUE = ORDERED | {"sampled"}
"""Codecs of a distribution over more than yes and no."""
CLICK = frozenset({"logit"})
ANY = CATALOGUE | CLICK


class ConstantSchedule(Settings):
    """The weight stays what it is."""

    kind: Literal["constant"] = "constant"
    """How the weight goes."""


class MovingSchedule(Settings):
    """The weight is multiplied by ``first``, then by what leads to ``last``, then by that."""

    kind: Literal["linear", "cosine"]
    """How it goes from the one to the other: along a line, or along half a cosine."""
    first: float = Field(default=0.0, ge=0)
    """Factor on the weight up to ``begin``."""
    last: float = Field(default=1.0, ge=0)
    """Factor on the weight from ``end`` on."""
    begin: float = Field(default=0.0, ge=0, lt=1)
    """Share of the training, from 0 to 1, at which it starts to move."""
    end: float = Field(default=1.0, gt=0, le=1)
    """Share of the training at which it has arrived."""

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> MovingSchedule:
        if self.begin >= self.end:
            raise ValueError(f"begin ({self.begin}) must be below end ({self.end})")
        return self


Schedule = Annotated[ConstantSchedule | MovingSchedule, Field(discriminator="kind")]


class LossSettings(Settings):
    """What all terms have in common."""

    codecs: ClassVar[frozenset[str]] = ANY
    """Codecs of soft labels that hold what the term needs."""
    hidden_states: ClassVar[bool] = False
    """Whether it needs the teacher's hidden states."""
    reaches_served_head: ClassVar[bool] = True
    """Whether it can teach the head that is served."""

    weight: float = Field(default=1.0, ge=0)
    """Factor on the term's mean over the points of a step."""
    schedule: Schedule = ConstantSchedule()
    """How the weight changes over the training."""

    @property
    def ever_counts(self) -> bool:
        """Whether it has a weight above 0 at some time of the training."""
        schedule = self.schedule
        return self.weight > 0 and not (isinstance(schedule, MovingSchedule) and schedule.first == schedule.last == 0)

    @property
    def listed(self) -> int:
        """Outcomes that the teacher's list must have in order; 0 when any will do."""
        return 0


class CrossEntropyLoss(LossSettings):
    """Cross entropy of the full softmax with what the user really did."""

    kind: Literal["cross_entropy"]
    """Which loss."""
    codecs: ClassVar[frozenset[str]] = CATALOGUE


class SampledCrossEntropyLoss(LossSettings):
    """The same with the softmax over a sample of the catalogue, with the logQ correction: for very large ones."""

    kind: Literal["sampled_cross_entropy"]
    """Which loss."""
    codecs: ClassVar[frozenset[str]] = CATALOGUE
    negatives: int = Field(default=2048, ge=1)
    """Outcomes drawn a step."""


class BinaryCrossEntropyLoss(LossSettings):
    """Cross entropy of one yes or no a row with what the user really did."""

    kind: Literal["binary_cross_entropy"]
    """Which loss."""
    codecs: ClassVar[frozenset[str]] = CLICK


class _TeacherLoss(LossSettings):
    codecs: ClassVar[frozenset[str]] = CATALOGUE

    head: Literal["served", "auxiliary"] = "served"
    """Which head learns it. ``auxiliary``: a second table, trained beside the served one on the same hidden states and
    left behind when training ends, so that the served head itself learns from what users did alone."""


class DivergenceLoss(_TeacherLoss):
    """T^2 * KL(teacher || student), both at temperature T."""

    kind: Literal["divergence"]
    """Which loss."""
    temperature: float = Field(default=1.0, gt=0)
    """T of both distributions."""


class SampledDivergenceLoss(LossSettings):
    """The same with the student's mass outside the labels estimated from a sample: for very large catalogues."""

    kind: Literal["sampled_divergence"]
    """Which loss."""
    codecs: ClassVar[frozenset[str]] = CATALOGUE - {"dense"}
    temperature: float = Field(default=1.0, gt=0)
    """T of both distributions."""
    negatives: int = Field(default=2048, ge=1)
    """Outcomes drawn a step."""


class StandardisedDivergenceLoss(_TeacherLoss):
    """Divergence between z-scores of the logits (Sun et al. 2024): relations, whatever the scale."""

    kind: Literal["standardised_divergence"]
    """Which loss."""
    codecs: ClassVar[frozenset[str]] = ORDERED
    temperature: float = Field(default=2.0, gt=0)
    """T of both standardised distributions."""

    @property
    def listed(self) -> int:
        """Two at least: one alone has no deviation."""
        return 2


class DecoupledDivergenceLoss(_TeacherLoss):
    """Decoupled distillation (Zhao et al. 2022): the target's part and the rest weighed by themselves."""

    kind: Literal["decoupled_divergence"]
    """Which loss."""
    codecs: ClassVar[frozenset[str]] = LISTS
    alpha: float = Field(default=1.0, ge=0)
    """Weight of what the teacher thinks of the observed outcome."""
    beta: float = Field(default=1.0, ge=0)
    """Weight of what it thinks of all others among themselves."""
    temperature: float = Field(default=1.0, gt=0)
    """T of both distributions."""


class CorrelationLoss(_TeacherLoss):
    """DIST (Huang et al. 2022): correlation with the teacher over outcomes, and over the points of a step."""

    kind: Literal["correlation"]
    """Which loss."""
    codecs: ClassVar[frozenset[str]] = LISTS
    inter: float = Field(default=1.0, ge=0)
    """Weight of the correlation over the outcomes of a point."""
    intra: float = Field(default=1.0, ge=0)
    """Weight of the correlation over the points for an outcome; keeps all logits of a step in memory."""
    temperature: float = Field(default=1.0, gt=0)
    """T of both distributions."""


class RelaxedRankingLoss(_TeacherLoss):
    """Relaxed ranking distillation (Kang et al. 2020): the teacher's best in order, and before all others."""

    kind: Literal["relaxed_ranking"]
    """Which loss."""
    codecs: ClassVar[frozenset[str]] = ORDERED
    interesting: int = Field(default=10, ge=1)
    """Outcomes drawn for each point from the teacher's list, sooner from its head."""
    among: int = Field(default=40, ge=1)
    """Length of the list that they are drawn from."""
    sharpness: float = Field(default=10.0, gt=0)
    """Places over which the chance of being drawn falls to 1/e."""
    uninteresting: int = Field(default=100, ge=1)
    """Outcomes drawn a step from the whole catalogue, evenly, to come after those."""

    @property
    def listed(self) -> int:
        """Length of the list that is drawn from."""
        return self.among

    @model_validator(mode="after")
    def _enough_to_draw(self) -> RelaxedRankingLoss:
        if self.interesting > self.among:
            raise ValueError(f"interesting ({self.interesting}) must not be above among ({self.among})")
        return self


class RejuvenatedCrossEntropyLoss(_TeacherLoss):
    """RCE-KD (Zhu and Zhang 2026): the teacher's best split by whether the student ranks them high as well."""

    kind: Literal["rejuvenated_cross_entropy"]
    """Which loss."""
    codecs: ClassVar[frozenset[str]] = LISTS
    k: int = Field(default=20, ge=1)
    """The best outcomes of teacher and student."""
    sampled: int = Field(default=20, ge=1)
    """Outcomes drawn from the student's list for each point, to judge the rest of the teacher's best against."""
    among: int = Field(default=100, ge=1)
    """Length of the student's list that they are drawn from."""
    sharpness: float = Field(default=10.0, gt=0)
    """How many more of the teacher's best at or below an outcome make it e times as likely to be drawn."""
    beta: float = Field(default=1.0, ge=0)
    """How fast the part of the rest fades as the sample meets the teacher's best."""
    temperature: float = Field(default=1.0, gt=0)
    """T of both distributions."""

    @property
    def listed(self) -> int:
        """The teacher's best."""
        return self.k

    @model_validator(mode="after")
    def _enough_to_draw(self) -> RejuvenatedCrossEntropyLoss:
        if max(self.sampled, self.k) > self.among:
            raise ValueError(f"sampled ({self.sampled}) and k ({self.k}) must not be above among ({self.among})")
        return self


class SoftBinaryCrossEntropyLoss(_TeacherLoss):
    """T^2 * cross entropy of one yes or no with the teacher's probability, both at temperature T."""

    kind: Literal["soft_binary_cross_entropy"]
    """Which loss."""
    codecs: ClassVar[frozenset[str]] = CLICK
    temperature: float = Field(default=1.0, gt=0)
    """T of both distributions."""


class LogitSquaredErrorLoss(_TeacherLoss):
    """Squared difference from the teacher's logit of one yes or no."""

    kind: Literal["logit_squared_error"]
    """Which loss."""
    codecs: ClassVar[frozenset[str]] = CLICK


class HintLoss(LossSettings):
    """FitNets (Romero et al. 2015): the teacher's hidden state, from the student's through a linear regressor."""

    kind: Literal["hint"]
    """Which loss."""
    hidden_states: ClassVar[bool] = True
    reaches_served_head: ClassVar[bool] = False


class TopologyLoss(LossSettings):
    """Topology distillation (Kang et al. 2021): which hidden states of a step are alike."""

    kind: Literal["topology"]
    """Which loss."""
    hidden_states: ClassVar[bool] = True
    reaches_served_head: ClassVar[bool] = False
    points: int = Field(default=512, ge=2)
    """Points of a step, at random, that are compared with one another."""


Loss = Annotated[
    CrossEntropyLoss
    | SampledCrossEntropyLoss
    | BinaryCrossEntropyLoss
    | DivergenceLoss
    | SampledDivergenceLoss
    | StandardisedDivergenceLoss
    | DecoupledDivergenceLoss
    | CorrelationLoss
    | RelaxedRankingLoss
    | RejuvenatedCrossEntropyLoss
    | SoftBinaryCrossEntropyLoss
    | LogitSquaredErrorLoss
    | HintLoss
    | TopologyLoss,
    Field(discriminator="kind"),
]
"""Any term, told apart by its ``kind``."""
OVER_ALL_OUTCOMES = (StandardisedDivergenceLoss, DecoupledDivergenceLoss, CorrelationLoss)
"""Terms that weigh all outcomes of a point against each other: not for tasks that leave some out."""
OVER_A_SAMPLE = (SampledCrossEntropyLoss, SampledDivergenceLoss)
"""Terms that score drawn outcomes alone: for networks whose scores are products with a table of them."""


def learns_from_auxiliary(loss: LossSettings) -> bool:
    """Whether a term teaches the head that is left behind."""
    return isinstance(loss, _TeacherLoss) and loss.head == "auxiliary"
