"""Linear layers that read what was cut, fitted to give what they gave before the cut.

A linear layer that loses half of its inputs can make up for most of it with those that are left, since they are
correlated: its weights and bias become those of the least squares between what it reads now and what it gave then (He,
Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017; Luo, Wu and Lin, "ThiNet", ICCV
2017). Layers come in the order in which they are computed, each reading what the ones before it give by now, so that it
makes up for their errors too. No labels are needed, and nothing is trained.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from components.compression.groups import Group
from components.compression.surgery import Kept
from components.networks.contract import PredictionNetwork

_RIDGE = 1e-3  # Of the mean square of an input: how much it takes to move a weight away from what the cut left.


def reconstructed(
    original: PredictionNetwork,
    smaller: PredictionNetwork,
    groups: Sequence[Group],
    kept: Kept,
    inputs: Sequence[tuple[torch.Tensor, ...]],
) -> PredictionNetwork:
    """A copy of the smaller network whose readers of cut units are fitted to the original's outputs.

    Args:
        original: Before the cut, in evaluation mode; it stays as it is, as ``smaller`` does.
        smaller: After it.
        groups: What could be cut.
        kept: What stayed.
        inputs: Inputs of batches, as ``encode`` takes them. Every position counts, a padded one too.
    """
    fitted = copy.deepcopy(smaller)
    for name, outputs in _readers(original, groups, kept, inputs):
        layer = fitted.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        moments = _Moments(layer)
        for each in inputs:
            moments.add(_seen(fitted, name, each)[0], _seen(original, name, each)[1].index_select(1, outputs))
        with torch.no_grad():
            moments.fit()
    return fitted


def _readers(
    network: PredictionNetwork, groups: Sequence[Group], kept: Kept, inputs: Sequence[tuple[torch.Tensor, ...]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Names of linear layers that lost inputs, as they are computed, and which of their outputs stayed."""
    outputs: dict[str, torch.Tensor] = {}
    readers = set()
    weights = network.state_dict()
    for group in groups:
        for part in group.slices:
            layer, _, kind = part.parameter.rpartition(".")
            if kind != "weight" or not isinstance(network.get_submodule(layer), nn.Linear):
                continue
            if part.axis == 1 and len(kept[group.name]) < group.units:
                readers.add(layer)
            if part.axis == 0:
                # Several groups may take from the same outputs, as heads and their width do: one after the other.
                left = outputs.get(layer, torch.arange(len(weights[part.parameter])))
                outputs[layer] = left.index_select(0, part.indices(kept[group.name], left, group.units))
    for name in _order(network, readers, inputs):
        yield name, outputs.get(name, torch.arange(len(weights[f"{name}.weight"])))


def _order(network: PredictionNetwork, names: set[str], inputs: Sequence[tuple[torch.Tensor, ...]]) -> list[str]:
    """Those that are computed when the network is called, in the order in which they are."""
    called: dict[str, None] = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(lambda *_, name=name: called.setdefault(name))
        for name in sorted(names)
    ]
    for each in inputs[:1]:
        _run(network, each)
    for hook in hooks:
        hook.remove()
    return list(called)


def _seen(network: PredictionNetwork, name: str, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """What a layer reads ``(rows, in)`` and gives ``(rows, out)`` of a batch."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def look(_: nn.Module, read: tuple[torch.Tensor, ...], given: torch.Tensor) -> None:
        seen.append((read[0].flatten(0, -2), given.flatten(0, -2)))

    hook = network.get_submodule(name).register_forward_hook(look)
    _run(network, inputs)
    hook.remove()
    read, given = zip(*seen, strict=True)
    return torch.cat(read), torch.cat(given)


def _run(network: PredictionNetwork, inputs: tuple[torch.Tensor, ...]) -> None:
    """As far as there are layers: scores of a catalogue are products with its table."""
    with torch.inference_mode():
        network(*inputs) if network.head is None else network.encode(*inputs)


class _Moments:
    """Sums over rows of products of inputs, and of inputs and wanted outputs, in double precision.

    Args:
        layer: Whose inputs they are; where it has a bias, that is one more weight, of an input that is always 1.
    """

    def __init__(self, layer: nn.Linear) -> None:
        self._layer = layer
        self._inputs = torch.zeros(())
        self._outputs = torch.zeros(())

    def add(self, inputs: torch.Tensor, wanted: torch.Tensor) -> None:
        """Take in rows ``(n, in)`` and ``(n, out)``."""
        read = inputs.double()
        if self._layer.bias is not None:
            read = torch.cat([read, torch.ones_like(read[:, :1])], dim=1)
        self._inputs = self._inputs + read.T @ read
        self._outputs = self._outputs + read.T @ wanted.double()

    def fit(self) -> None:
        """Give the layer the weights of the least squares, drawn a little towards those that it has."""
        layer = self._layer
        before = [layer.weight.T] if layer.bias is None else [layer.weight.T, layer.bias[None]]
        squares = self._inputs.diagonal().clone()
        squares[: layer.in_features] = squares[: layer.in_features].mean().clamp(min=torch.finfo(torch.float32).tiny)
        ridge = _RIDGE * squares
        found = torch.linalg.solve(
            self._inputs + ridge.diag(), self._outputs + ridge[:, None] * torch.cat(before).double()
        ).float()
        layer.weight.copy_(found[: layer.in_features].T)
        if layer.bias is not None:
            layer.bias.copy_(found[-1])
