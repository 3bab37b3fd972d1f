"""Cutting units out of a network: which ones stay, the smaller network, and the proof that it is the same function.

**Mask equivalence.** The smaller network must give what the original gives with the same units masked. A masked
feed-forward channel, head or channel of the heads has all its weights at zero. A masked channel of the model width has
its weights at zero too, so that the residual stream carries 0 there; but a LayerNorm over the full width would still
count those zeros in its mean and variance. Cutting the width therefore means, by definition, that every LayerNorm takes
its statistics over the channels that stay; the masked original is computed with just such norms, and nothing else in it
is changed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from components.compression.groups import Group, Kind
from components.compression.importance import Scores
from components.errors import CompressionError
from components.networks.building import network_of
from components.networks.contract import PredictionNetwork

Kept = dict[str, torch.Tensor]
"""Units that stay ``(kept,)`` int64, ascending, by the name of the group."""

# Processors multiply matrices whose sides are multiples of this at full speed.
_MULTIPLE: dict[Kind, int] = {"ffn": 8, "heads": 1, "head_width": 8, "width": 8, "channels": 4}
_TOLERANCE = 1e-6


def kept_count(kind: Kind, units: int, ratio: float) -> int:
    """How many units stay when a share ``ratio`` goes.

    The nearest multiple of 8 for channels and widths (where there are more than 8), the nearest whole number for heads,
    or all of them when that is nearest; the greater of two as near; never none.
    """
    wanted = round(units * (1 - ratio), 9)
    return min(counts_that_may_stay(kind, units), key=lambda count: (abs(count - wanted), -count))


def counts_that_may_stay(kind: Kind, units: int) -> list[int]:
    """Ascending; see :func:`kept_count`."""
    step = _MULTIPLE[kind] if units > _MULTIPLE[kind] else 1
    return [*range(step, units, step), units]


def units_to_keep(groups: Sequence[Group], scores: Scores, counts: Mapping[str, int]) -> Kept:
    """The most important units of each group, ``counts`` by its name; of equally important ones those that come
    first."""
    kept = {}
    for group in groups:
        best = torch.sort(scores[group.name], descending=True, stable=True).indices[: counts[group.name]]
        kept[group.name] = best.sort().values
    return kept


def resized(record: Mapping[str, Any], groups: Sequence[Group], counts: Mapping[str, int]) -> dict[str, Any]:
    """An architecture record with as many units of each group as ``counts`` says by its name."""
    copied = copy.deepcopy(dict(record))
    for group in groups:
        _set(copied, group.record, counts[group.name])
    return copied


def cut(network: PredictionNetwork, groups: Sequence[Group], kept: Kept) -> PredictionNetwork:
    """A new, smaller network with the kept units' weights, in evaluation mode."""
    weights = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    for group in groups:
        for part in group.slices:
            weight = weights[part.parameter]
            places = part.indices(kept[group.name], weight, group.units)
            weights[part.parameter] = weight.index_select(part.axis, places)
    smaller = network_of(resized(network.record(), groups, {name: len(units) for name, units in kept.items()}))
    smaller.load_state_dict(weights)
    return smaller.eval()


def masked(network: PredictionNetwork, groups: Sequence[Group], kept: Kept) -> PredictionNetwork:
    """A copy of a network, in its full size and in evaluation mode, with all units but the kept ones masked."""
    copied = copy.deepcopy(network).eval()
    parameters = dict(copied.named_parameters())
    for group in groups:
        stays = torch.zeros(group.units, dtype=torch.bool)
        stays[kept[group.name]] = True
        gone = torch.arange(group.units)[~stays]
        for part in group.slices:
            with torch.no_grad():
                parameter = parameters[part.parameter]
                parameter.index_fill_(part.axis, part.indices(gone, parameter, group.units), 0.0)
            owner = copied.get_submodule(part.parameter.rpartition(".")[0])
            if isinstance(owner, nn.LayerNorm) and part.parameter.endswith("weight"):
                owner.register_forward_hook(_NormOverKept(stays))
    return copied


def check_mask_equivalence(
    original: PredictionNetwork,
    smaller: PredictionNetwork,
    groups: Sequence[Group],
    kept: Kept,
    inputs: Sequence[tuple[torch.Tensor, ...]],
) -> float:
    """The largest difference between a score of the smaller network and of the masked original, in double precision.

    Args:
        original: Before the cut.
        smaller: After it, before any training.
        groups: What could be cut.
        kept: What stayed.
        inputs: Inputs of batches, as ``encode`` takes them.

    Raises:
        CompressionError: They are not the same function.
    """
    reference = masked(original, groups, kept).double()
    candidate = copy.deepcopy(smaller).double()
    worst = 0.0
    with torch.inference_mode():
        for each in inputs:
            difference = (reference(*each) - candidate(*each)).abs()
            # NaN must not pass for small.
            worst = max(worst, float(difference.nan_to_num(nan=torch.inf).max())) if difference.numel() else worst
    if worst > _TOLERANCE:
        raise CompressionError(
            f"the pruned network is not the original with the same units masked: scores differ by {worst:.3g}, "
            f"more than {_TOLERANCE}",
            "This is a fault in Recstill; set the ratios of `pruning` to 0 to go on without pruning.",
        )
    return worst


class _NormOverKept:
    """Forward hook that lets a LayerNorm take mean and variance over the kept channels only."""

    def __init__(self, stays: torch.Tensor) -> None:
        self.stays = stays

    def __call__(self, norm: nn.Module, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> torch.Tensor:
        assert isinstance(norm, nn.LayerNorm)
        (x,) = inputs
        stays = self.stays.to(x.dtype)
        count = stays.sum()
        mean = (x * stays).sum(-1, keepdim=True) / count
        variance = ((x - mean).square() * stays).sum(-1, keepdim=True) / count
        return (x - mean) / (variance + norm.eps).sqrt() * stays * norm.weight + norm.bias


def _set(record: dict[str, Any], path: tuple[str | int, ...], value: int) -> None:
    place: Any = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
