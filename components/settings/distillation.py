"""``scenarios.*.distillation``: the loss of a student, and of the fine-tuning after pruning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from components.errors import SettingsError
from components.settings.base import Settings
from components.settings.losses import (
    CLICK,
    OVER_A_SAMPLE,
    BinaryCrossEntropyLoss,
    CrossEntropyLoss,
    DivergenceLoss,
    Loss,
    SoftBinaryCrossEntropyLoss,
    learns_from_auxiliary,
)

_SHORT = ("lambda_hard", "lambda_soft", "temperature")


class DistillationSettings(Settings):
    """L = lambda_hard * CE(hard label) + lambda_soft * T^2 * KL(teacher || student), both at temperature T.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015, section 2. That is the short form
    of ``losses: [{kind: cross_entropy, weight: ...}, {kind: divergence, weight: ..., temperature: ...}]``, and
    ``losses`` may hold any other terms.
    """

    lambda_hard: float = Field(default=0.2, ge=0)
    """Weight of the cross entropy with what the user really did."""
    lambda_soft: float = Field(default=0.8, ge=0)
    """Weight of the divergence from the teacher's distribution."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of both distributions in the soft term."""
    losses: tuple[Loss, ...] | None = None
    """Terms that are added up, in the place of the three keys above. None: those two terms."""

    @model_validator(mode="after")
    def _some_loss(self) -> DistillationSettings:
        if self.losses is None:
            if self.lambda_hard + self.lambda_soft == 0:
                raise ValueError("lambda_hard and lambda_soft are both 0: there is nothing to learn from")
            return self
        if both := [name for name in _SHORT if name in self.model_fields_set]:
            raise ValueError(f"{', '.join(both)} and losses say the same in two ways: give one of the two")
        if not any(
            loss.ever_counts and loss.reaches_served_head and not learns_from_auxiliary(loss) for loss in self.losses
        ):
            raise ValueError(
                "none of the losses teaches the served head; add {kind: cross_entropy}, or another on it, whose weight "
                "and schedule do not keep it at 0"
            )
        return self

    def terms(self, codec: str = "") -> tuple[Loss, ...]:
        """All terms, whichever way they were written.

        Args:
            codec: Name of the cache's codec: the short form of one yes or no a row (``logit``) has binary terms.
        """
        if self.losses is not None:
            return self.losses
        if codec in CLICK:
            soft = SoftBinaryCrossEntropyLoss(
                kind="soft_binary_cross_entropy", weight=self.lambda_soft, temperature=self.temperature
            )
            return BinaryCrossEntropyLoss(kind="binary_cross_entropy", weight=self.lambda_hard), soft
        return (
            CrossEntropyLoss(kind="cross_entropy", weight=self.lambda_hard),
            DivergenceLoss(kind="divergence", weight=self.lambda_soft, temperature=self.temperature),
        )


def check_cache(
    distillation: DistillationSettings, codec: Mapping[str, Any], where: str, outcomes: int | None = None
) -> None:
    """Refuse terms that need of the soft-label cache what it does not hold.

    Args:
        distillation: The terms.
        codec: Name and settings of the cache's codec, as in its manifest: ``name``, ``k``, ``head``, ``hidden_dim``.
        where: The dotted key of the scenario, named in errors.
        outcomes: K, when it is known: no list of the teacher's best is longer.

    Raises:
        SettingsError: Names the key of the first such term, and what to set.
    """
    name = str(codec["name"])
    for place, term in enumerate(distillation.terms(name)):
        if term.weight == 0:
            continue
        key = _key(distillation, place, term, where)
        if name not in term.codecs:
            known = " or ".join(sorted(term.codecs))
            raise SettingsError(
                f"params.yaml: {key} needs soft labels of codec {known}, and the cache has {name}",
                f"Set '{where}.soft_labels.codec' to {_nearest_codec(term)}, or take the loss out.",
            )
        if term.hidden_states and not codec.get("hidden_dim"):
            raise SettingsError(
                f"params.yaml: {key} needs the teacher's hidden states, and the cache has none",
                f"Set '{where}.soft_labels.hidden_states' to true, or take the loss out.",
            )
        if outcomes is not None and outcomes < term.listed:
            raise SettingsError(
                f"params.yaml: {key} needs the teacher's {term.listed} best outcomes, and there are {outcomes} in all",
                "Lower what the loss asks for, or take it out.",
            )
        listed = {"top_k_tail": codec.get("k"), "top_k_sampled": codec.get("head")}.get(name)
        if listed is not None and int(listed) < term.listed:
            option = "k" if name == "top_k_tail" else "head"
            raise SettingsError(
                f"params.yaml: {key} needs the teacher's {term.listed} best outcomes, and the cache has {listed}",
                f"Set '{where}.soft_labels.{option}' to {term.listed} or more, or lower what the loss asks for.",
            )


def check_head(distillation: DistillationSettings, where: str) -> None:
    """Refuse terms that are not for a network that does not score by a table of outcomes.

    Args:
        distillation: The terms of such a network.
        where: The dotted key of the scenario, named in errors.

    Raises:
        SettingsError: Names the key of the first such term, and what to set.
    """
    for place, term in enumerate(distillation.terms()):
        if term.weight > 0 and isinstance(term, OVER_A_SAMPLE):
            raise SettingsError(
                f"params.yaml: {_key(distillation, place, term, where)} scores a sample of a table of outcomes, and "
                "the network has no such table",
                f"Set it to {term.kind.removeprefix('sampled_')}, which is over all outcomes, or take it out.",
            )


def _key(distillation: DistillationSettings, place: int, term: Loss, where: str) -> str:
    return f"'{where}.distillation{'' if distillation.losses is None else f'.losses.{place}'}' ({term.kind})"


def _nearest_codec(term: Loss) -> str:
    return "top_k_tail" if "top_k_tail" in term.codecs else sorted(term.codecs)[0]
