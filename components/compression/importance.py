"""How much a network would lose with a unit: the criteria of structured pruning, one score a unit of each group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from components.compression.groups import Group
from components.networks.contract import PredictionNetwork
from components.tasks.batch import Batch

Scores = dict[str, torch.Tensor]
"""Importance ``(units,)`` by the name of the group. Norms are comparable within a group only, effects on the loss and
chance between groups too."""

_SMALLEST = 1e-12  # Keeps the gradient of a norm finite at 0.


def magnitude(network: PredictionNetwork, groups: Sequence[Group]) -> Scores:
    """L2 norm of all weights of a unit (Li et al., "Pruning Filters for Efficient ConvNets", 2017)."""
    return {group.name: squares.sqrt() for group, squares in _squares(network, groups)}


def taylor(
    network: PredictionNetwork,
    groups: Sequence[Group],
    batches: Iterable[Batch],
    loss: Callable[[Batch], torch.Tensor],
) -> Scores:
    """First-order effect of a unit on the loss: the mean over batches of ``|sum of weight * gradient|``.

    Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019, equation 8, with the absolute value in
    the place of the square, for the weights of a unit as one group.

    Args:
        network: Its weights stay as they are; gradients are cleared.
        groups: What is scored.
        batches: Calibration batches.
        loss: The loss of a batch on ``network``, a scalar.
    """
    parameters = dict(network.named_parameters())
    scores = {group.name: torch.zeros(group.units) for group in groups}
    for batch in batches:
        network.zero_grad(set_to_none=True)
        loss(batch).backward()
        for group in groups:
            effect = torch.zeros(group.units)
            for part in group.slices:
                weight = parameters[part.parameter]
                if weight.grad is not None:
                    effect += part.units_of(weight.detach() * weight.grad, group.units).sum(1)
            scores[group.name] += effect.abs()
    network.zero_grad(set_to_none=True)
    return scores


def compared(norms: Scores) -> Scores:
    """Norms as multiples of their group's mean: a head's has more weights in it than a channel's, and says no more.

    As torch-pruning 1.6.1 does for its global pruning (``GroupMagnitudeImportance``, ``normalizer="mean"``).
    """
    return {name: own / own.mean().clamp(min=_SMALLEST) for name, own in norms.items()}


def chance(groups: Sequence[Group], seed: int) -> Scores:
    """Random scores, the control that every criterion must beat."""
    generator = torch.Generator().manual_seed(seed)
    return {group.name: torch.rand(group.units, generator=generator) for group in groups}


def group_lasso(groups: Sequence[Group], weight: float) -> Callable[[PredictionNetwork], torch.Tensor]:
    """A term of the loss that drives whole units to zero, after which :func:`magnitude` tells them apart.

    ``weight * sum over units of sqrt(values of the unit) * L2 norm of its weights`` (Yuan and Lin, "Model selection and
    estimation in regression with grouped variables", 2006).

    Args:
        groups: Whose units compete.
        weight: Of the term.
    """

    def penalty(network: PredictionNetwork) -> torch.Tensor:
        parameters = dict(network.named_parameters())
        total = torch.zeros((), device=next(iter(parameters.values())).device)
        for group, squares in _squares(network, groups):
            values = sum(parameters[part.parameter].numel() for part in group.slices) / group.units
            total = total + values**0.5 * (squares + _SMALLEST).sqrt().sum()
        return weight * total

    return penalty


def _squares(network: PredictionNetwork, groups: Sequence[Group]) -> Iterable[tuple[Group, torch.Tensor]]:
    parameters = dict(network.named_parameters())
    for group in groups:
        parts = [part.units_of(parameters[part.parameter], group.units).square().sum(1) for part in group.slices]
        yield group, torch.stack(parts).sum(0)
