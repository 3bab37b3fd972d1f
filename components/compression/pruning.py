"""Structured pruning by the settings: score the units, cut the least important ones, check the cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from components.compression.groups import Group, Kind, prunable_groups
from components.compression.importance import Scores, chance, magnitude, taylor
from components.compression.surgery import Kept, check_mask_equivalence, cut, units_to_keep
from components.networks.contract import PredictionNetwork
from components.settings.pruning import PruningSettings
from components.tasks.batch import Batch
from components.tasks.contract import Task

_CHECKED_BATCHES = 2


@dataclass(frozen=True)
class PrunedNetwork:
    """What a cut left.

    Attributes:
        network: Rebuilt smaller, not yet fine-tuned.
        kept: Which units stayed, of all groups.
        groups: What could be cut.
        mask_difference: Largest difference of a score to the masked original, see :mod:`.surgery`.
    """

    network: PredictionNetwork
    kept: Kept
    groups: Sequence[Group]
    mask_difference: float

    def shares(self) -> dict[str, str]:
        """How many units of each group stayed, as ``"64 of 128"`` by the group's name."""
        return {group.name: f"{len(self.kept[group.name])} of {group.units}" for group in self.groups}


def ratios_of(settings: PruningSettings) -> dict[Kind, float]:
    """Share of units that goes, by the kind of unit."""
    return {
        "ffn": settings.ffn_ratio,
        "heads": settings.heads_ratio,
        "width": settings.width_ratio,
        "channels": settings.channels_ratio,
    }


def groups_to_cut(network: PredictionNetwork, settings: PruningSettings) -> list[Group]:
    """The groups of which something may go; empty when all ratios are 0.

    Raises:
        CompressionError: It is not known what can be cut out of this network.
    """
    ratios = ratios_of(settings)
    return [group for group in prunable_groups(network) if ratios[group.kind] > 0] if any(ratios.values()) else []


def pruned(
    network: PredictionNetwork,
    groups: Sequence[Group],
    settings: PruningSettings,
    *,
    task: Task,
    loss: Callable[[Batch], torch.Tensor],
    seed: int,
) -> PrunedNetwork:
    """Cut the least important units out of a network, which stays as it is.

    Args:
        network: In evaluation mode; for ``sparsity``, after the group-lasso phase.
        groups: From :func:`groups_to_cut`.
        settings: Criterion and ratios.
        task: Makes the calibration batches.
        loss: The summed loss of a batch on ``network``.
        seed: Of the batches and of ``random``.

    Raises:
        CompressionError: The smaller network is not the original with the same units masked.
    """
    batches = list(islice(iter(task.training_batches(64, seed=seed, epoch=0)), settings.calibration_batches))
    scores = _scores(network, groups, settings, batches=batches, loss=loss, seed=seed)
    kept = units_to_keep(groups, scores, ratios_of(settings))
    smaller = cut(network, groups, kept)
    inputs = [batch.inputs for batch in batches[:_CHECKED_BATCHES]]
    return PrunedNetwork(smaller, kept, groups, check_mask_equivalence(network, smaller, groups, kept, inputs))


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
                return magnitude(network, groups)
        case "taylor":
            return taylor(network, groups, batches, lambda batch: loss(batch) / max(1, len(batch.targets)))
        case "random":
            return chance(groups, seed)
