"""A linear head and its loss, a few rows of logits at a time.

The ``(N, K)`` logits of a step never exist whole: a chunk of rows is computed, turned into the gradient of its loss,
and used up in the products that give the gradients of the hidden states and of the head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from components.training.objectives import Objective

# Logits of a chunk: on a processor they should stay in its cache, a GPU wants large products.
_CPU_CHUNK, _GPU_CHUNK = 1 << 21, 1 << 26
_MOST_ROWS_ON_CPU = 1024


def linear_head_loss(hidden: torch.Tensor, weight: torch.Tensor, objective: Objective) -> torch.Tensor:
    """Sum of the losses of ``hidden @ weight.T``.

    Args:
        hidden: ``(N, dim)``.
        weight: ``(K, dim)``.
        objective: Judges N rows of K logits.

    Returns:
        A scalar, differentiable with respect to ``hidden`` and ``weight``.
    """
    value: torch.Tensor = _LinearHeadLoss.apply(hidden.to(weight.dtype), weight, objective)
    return value


class _LinearHeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, objective: Objective) -> torch.Tensor:
        points, outcomes = len(hidden), len(weight)
        of_hidden, of_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        # In half precision the products may be rounded, but not the exponentials and sums.
        half = weight.dtype in (torch.bfloat16, torch.float16)
        value = torch.zeros((), dtype=torch.float32 if half else weight.dtype, device=weight.device)
        rows = max(1, min(points, _rows_of_a_chunk(outcomes, weight.device.type)))
        scratch = weight.new_empty(rows, outcomes)
        for start in range(0, points, rows):
            chunk = slice(start, min(start + rows, points))
            logits = torch.mm(hidden[chunk], weight.t(), out=scratch[: chunk.stop - chunk.start])
            if half:
                logits = logits.float()
            value += objective.differentiate_(logits, chunk)
            gradient = logits.to(weight.dtype)
            torch.mm(gradient, weight, out=of_hidden[chunk])
            of_weight.addmm_(gradient.t(), hidden[chunk])
        ctx.gradients = of_hidden, of_weight
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        of_hidden, of_weight = ctx.gradients
        factor = factor.to(of_weight.dtype)
        return of_hidden.mul_(factor), of_weight.mul_(factor), None


def _rows_of_a_chunk(outcomes: int, device: str) -> int:
    if device == "cpu":
        return max(16, min(_CPU_CHUNK // outcomes, _MOST_ROWS_ON_CPU))
    return max(256, _GPU_CHUNK // outcomes)
