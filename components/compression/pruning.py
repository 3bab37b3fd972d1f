"""Structured pruning by the settings: score the units, cut the least important ones, check the cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from components.compression.competition import check_reachable, counts_within
from components.compression.cost import multiply_adds
from components.compression.groups import Group, Kind, prunable_groups
from components.compression.importance import Scores, chance, compared, magnitude, taylor
from components.compression.reconstruction import reconstructed
from components.compression.surgery import Kept, check_mask_equivalence, cut, kept_count, units_to_keep
from components.errors import SettingsError
from components.networks.contract import PredictionNetwork
from components.settings.base import nearest
from components.settings.pruning import PruningSettings
from components.tasks.batch import Batch
from components.tasks.contract import Task

_CHECKED_BATCHES = 2
# Widths run through other parts: what a unit of theirs costs depends on how many of those stay.
_NOT_COMPETING: tuple[Kind, ...] = ("width", "head_width")


@dataclass(frozen=True)
class PrunedNetwork:
    """What a cut left.

    Attributes:
        network: Rebuilt smaller, not yet fine-tuned.
        kept: Which units stayed, of all groups.
        groups: What could be cut.
        mask_difference: Largest difference of a score to the masked original, see :mod:`.surgery`; before what reads
            the units was fitted.
    """

    network: PredictionNetwork
    kept: Kept
    groups: Sequence[Group]
    mask_difference: float


def groups_to_cut(network: PredictionNetwork, settings: PruningSettings) -> list[Group]:
    """The groups of which something may go; empty when all ratios are 0.

    Raises:
        CompressionError: It is not known what can be cut out of this network.
        SettingsError: ``ratios`` names a part that the network has not, or ``multiply_adds_share`` is out of reach.
    """
    if settings.multiply_adds_share is not None:
        competing = [group for group in prunable_groups(network) if group.kind not in _NOT_COMPETING]
        if not competing:
            raise SettingsError(
                "params.yaml: 'pruning.multiply_adds_share' is for networks with channels or heads; this one has none",
                "Set 'pruning.width_ratio' in its place.",
            )
        check_reachable(network.record(), competing, settings.multiply_adds_share)
        return competing
    if not any((*_by_kind(settings).values(), *settings.ratios.values())):
        return []
    groups = prunable_groups(network)
    names = [group.name for group in groups]
    if unknown := next((name for name in settings.ratios if name not in names), None):
        raise SettingsError(
            f"params.yaml: 'pruning.ratios' names {unknown!r}, which is no part of the student; "
            f"{nearest(unknown, names)}"
        )
    return [group for group in groups if _ratio(group, settings) > 0]


def counts_to_keep(
    network: PredictionNetwork,
    groups: Sequence[Group],
    scores: Scores,
    settings: PruningSettings,
    *,
    student: PredictionNetwork,
    share: float = 1.0,
) -> dict[str, int]:
    """How many units of each group stay, by its name.

    Args:
        network: As it is now.
        groups: Its groups of those that :func:`groups_to_cut` found in the student.
        scores: Importance of their units; for ``multiply_adds_share``, comparable between groups.
        settings: How much goes.
        student: Before any cut: what the settings' shares are of.
        share: Of all that is to go, what is gone after this cut.
    """
    if settings.multiply_adds_share is not None:
        stays = 1 - share * (1 - settings.multiply_adds_share)
        return counts_within(network.record(), groups, scores, stays * multiply_adds(student.record()))
    units = {group.name: group.units for group in prunable_groups(student)}
    return {
        group.name: min(group.units, kept_count(group.kind, units[group.name], share * _ratio(group, settings)))
        for group in groups
    }


def pruned(
    network: PredictionNetwork,
    groups: Sequence[Group],
    settings: PruningSettings,
    *,
    task: Task,
    loss: Callable[[Batch], torch.Tensor],
    seed: int,
    student: PredictionNetwork | None = None,
    share: float = 1.0,
) -> PrunedNetwork:
    """Cut the least important units out of a network, which stays as it is.

    Args:
        network: In evaluation mode; for ``sparsity``, after the group-lasso phase.
        groups: Its groups of those that :func:`groups_to_cut` found in the student.
        settings: Criterion, and how much goes.
        task: Makes the calibration batches.
        loss: The summed loss of a batch on ``network``.
        seed: Of the batches and of ``random``.
        student: Before any cut; None: ``network`` is it.
        share: Of all that is to go, what is gone after this cut.

    Raises:
        CompressionError: The smaller network is not the original with the same units masked.
    """
    batches = list(islice(iter(task.training_batches(64, seed=seed, epoch=0)), settings.calibration_batches))
    scores = _scores(network, groups, settings, batches=batches, loss=loss, seed=seed)
    counts = counts_to_keep(network, groups, scores, settings, student=student or network, share=share)
    kept = units_to_keep(groups, scores, counts)
    smaller = cut(network, groups, kept)
    inputs = [batch.inputs for batch in batches]
    difference = check_mask_equivalence(network, smaller, groups, kept, inputs[:_CHECKED_BATCHES])
    if settings.reconstruction:
        smaller = reconstructed(network, smaller, groups, kept, inputs)
    return PrunedNetwork(smaller, kept, groups, difference)


def validation_quality(network: PredictionNetwork, task: Task) -> float:
    """The task's primary measure on the validation points."""
    metric = task.validation_metric()
    with torch.inference_mode():
        for batch in task.evaluation_batches("validation", 256):
            metric.update(network(*batch.inputs), batch)
    return float(metric.compute())


def _scores(
    network: PredictionNetwork,
    groups: Sequence[Group],
    settings: PruningSettings,
    *,
    batches: Sequence[Batch],
    loss: Callable[[Batch], torch.Tensor],
    seed: int,
) -> Scores:
    match settings.importance:
        case "magnitude" | "sparsity":
            with torch.no_grad():
                norms = magnitude(network, groups)
                return norms if settings.multiply_adds_share is None else compared(norms)
        case "taylor":
            return taylor(network, groups, batches, lambda batch: loss(batch) / max(1, len(batch.targets)))
        case "random":
            return chance(groups, seed)


def _by_kind(settings: PruningSettings) -> dict[Kind, float]:
    return {
        "ffn": settings.ffn_ratio,
        "heads": settings.heads_ratio,
        "head_width": settings.head_width_ratio,
        "width": settings.width_ratio,
        "channels": settings.channels_ratio,
    }


def _ratio(group: Group, settings: PruningSettings) -> float:
    """Share of a group's units that goes."""
    return settings.ratios.get(group.name, _by_kind(settings)[group.kind])
