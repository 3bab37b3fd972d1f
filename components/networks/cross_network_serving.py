"""The served form of a cross network: the same function, with linear weights as ONNX's MatMul wants them."""

from __future__ import annotations

import copy

import torch
from torch import nn


class StoredLinear(nn.Module):
    """``x @ weight + bias`` with a weight ``(in, out)``."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach().T.contiguous(), requires_grad=False)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in)`` to ``(..., out)``."""
        product = x @ self.weight
        return product if self.bias is None else product + self.bias


class _Served(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


class _OfCategories(_Served):
    def forward(self, categories: torch.Tensor) -> torch.Tensor:
        """Scores ``(batch, 1)``."""
        scores: torch.Tensor = self.network(categories)
        return scores


class _WithNumbers(_Served):
    def forward(self, categories: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Scores ``(batch, 1)``."""
        scores: torch.Tensor = self.network(categories, numbers)
        return scores


class _WithHistory(_Served):
    def forward(self, categories: torch.Tensor, history: torch.Tensor, happened: torch.Tensor) -> torch.Tensor:
        """Scores ``(batch, 1)``."""
        scores: torch.Tensor = self.network(categories, history, happened)
        return scores


class _WithBoth(_Served):
    def forward(
        self, categories: torch.Tensor, numbers: torch.Tensor, history: torch.Tensor, happened: torch.Tensor
    ) -> torch.Tensor:
        """Scores ``(batch, 1)``."""
        scores: torch.Tensor = self.network(categories, numbers, history, happened)
        return scores


def served_form(network: nn.Module, *, numbers: bool, history: bool) -> nn.Module:
    """A copy of a network that takes the inputs it has by name.

    Args:
        network: Stays as it is.
        numbers: Whether it takes any.
        history: Whether it takes one.
    """
    copied = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    for name, module in list(copied.named_modules()):
        if isinstance(module, nn.Linear):
            owner, _, last = name.rpartition(".")
            setattr(copied.get_submodule(owner), last, StoredLinear(module))
    form = {
        (False, False): _OfCategories,
        (True, False): _WithNumbers,
        (False, True): _WithHistory,
        (True, True): _WithBoth,
    }[numbers, history]
    return form(copied).eval()
