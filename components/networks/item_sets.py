"""What networks that read the items of a user have in common; the order of the items says nothing to them."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from components.networks.contract import ServedInput


def counted_rows(table: torch.Tensor, items: torch.Tensor, length: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of items, and how many count.

    Args:
        table: ``(K, dim)``.
        items: ``(N, length)`` int64, padded on the right with any item.
        length: ``(N,)`` int64, items of each row that count; 0 is computed as 1.

    Returns:
        ``(N, length, dim)`` with zeros for what does not count, and ``(N, 1)``.
    """
    count = length.clamp(min=1)[:, None]
    there = torch.arange(items.shape[1], device=items.device) < count
    return F.embedding(items, table) * there.to(table.dtype)[..., None], count.to(table.dtype)


def item_set_inputs() -> tuple[ServedInput, ...]:
    """Items, padded on the right, and how many of each row count."""
    # Neither 0 nor 1, nor one more, which torch.export would take for constants.
    return (
        ServedInput("items", torch.int64, (3, 5), {0: "batch", 1: "length"}),
        ServedInput("length", torch.int64, (3,), {0: "batch"}),
    )
