"""A cut in one go or in several, with fine-tuning after each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from components.compression.groups import Group, prunable_groups
from components.compression.pruning import PrunedNetwork, pruned
from components.networks.contract import PredictionNetwork
from components.settings.pruning import PruningSettings
from components.settings.training import OptimizationSettings
from components.tasks.batch import Batch
from components.tasks.contract import Task


@dataclass(frozen=True)
class Step:
    """One cut and the fine-tuning after it.

    Attributes:
        name: What the network is called meanwhile.
        share: Of all that is to go, what is gone after this cut.
        optimization: The fine-tuning.
    """

    name: str
    share: float
    optimization: OptimizationSettings


def steps_of(count: int, optimization: OptimizationSettings) -> list[Step]:
    """One step of everything, or several in which as much goes each time (Molchanov et al., "Pruning Convolutional
    Neural Networks for Resource Efficient Inference", 2017, section 2: cuts in turns with fine-tuning).

    The epochs are divided among the steps; those that are left over go to the last ones. Every step begins with the
    full learning rate (Renda, Frankle and Carbin, "Comparing Rewinding and Fine-tuning in Neural Network Pruning",
    2020: learning rate rewinding).

    Args:
        count: How many.
        optimization: Of all of them together; it has an epoch for each at least.
    """
    if count == 1:
        return [Step("pruned", 1.0, optimization)]
    ends = [optimization.max_epochs * number // count for number in range(count + 1)]
    return [
        Step(
            f"pruned step {number} of {count}",
            number / count,
            optimization.model_copy(update={"max_epochs": ends[number] - ends[number - 1]}),
        )
        for number in range(1, count + 1)
    ]


def cuts(
    network: PredictionNetwork,
    groups: Sequence[Group],
    settings: PruningSettings,
    *,
    student: PredictionNetwork,
    task: Task,
    loss_of: Callable[[PredictionNetwork], Callable[[Batch], torch.Tensor]],
    seed: int,
) -> Iterator[tuple[Step, PrunedNetwork]]:
    """One cut after the other; whoever takes one fine-tunes its network in place before the next is asked for.

    Args:
        network: In evaluation mode; for ``sparsity``, after the group-lasso phase. It stays as it is.
        groups: Of the student, from :func:`groups_to_cut`; without any there is one step, that cuts nothing.
        settings: Criterion, how much goes, and in how many steps.
        student: What the settings' shares are of.
        task: Makes the calibration batches.
        loss_of: Gives the summed loss of a batch on a network.
        seed: Of the batches and of ``random``.

    Raises:
        CompressionError: A smaller network is not the one before with the same units masked.
    """
    names = {group.name for group in groups}
    for step in steps_of(settings.steps if groups else 1, settings.optimization):
        current = [group for group in prunable_groups(network) if group.name in names] if names else []
        found = pruned(
            network,
            current,
            settings,
            task=task,
            loss=loss_of(network),
            seed=seed,
            student=student,
            share=step.share,
        )
        yield step, found
        network = found.network
