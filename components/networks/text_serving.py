"""The served form of networks that read texts: the same function, with weights stored as ``(in, out)``, as ONNX's
MatMul wants them."""

from __future__ import annotations

import copy

import torch
from torch import nn

from components.networks.contract import ServedInput


class Projection(nn.Module):
    """``x @ weight + bias``.

    Args:
        linear: Whose function.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach().T.contiguous(), requires_grad=False)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., in)`` to ``(..., out)``."""
        product = x @ self.weight
        return product if self.bias is None else product + self.bias


class ServedText(nn.Module):
    """From tokens to scores.

    Args:
        network: Whose function; it stays as it is.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        for module in list(self.network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(module, name, Projection(child))

    def forward(self, tokens: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """Scores ``(batch, K)`` of tokens ``(batch, length)``, padded on the right, and their numbers ``(batch,)``."""
        scores: torch.Tensor = self.network(tokens, length)
        return scores


def text_inputs() -> tuple[ServedInput, ...]:
    """Tokens, padded on the right, and how many of each row count."""
    # Neither 0 nor 1, nor one more, which torch.export would take for constants.
    return (
        ServedInput("tokens", torch.int64, (3, 5), {0: "batch", 1: "length"}),
        ServedInput("length", torch.int64, (3,), {0: "batch"}),
    )
