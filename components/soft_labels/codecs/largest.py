"""The largest logits of each row, in an order that is the same everywhere."""

from __future__ import annotations

import torch

# Groups this small make the searches in maxima and in members cost about the same.
_GROUP = 8


def largest(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and ids ``(N, k)`` of the largest logits, in descending order, equal ones by ascending id.

    Args:
        logits: ``(N, K)``.
        k: At most K.
    """
    # One more than asked for shows whether the k-th place is shared.
    values, ids = _some_largest(logits, min(k + 1, logits.shape[1]))
    tied = (values[:, 1:] == values[:, :-1]).any(1).nonzero().squeeze(1)
    values, ids = values[:, :k].contiguous(), ids[:, :k].contiguous()
    if len(tied):
        # topk leaves the order of equal values open, and with it the bytes of the cache.
        in_order, places = torch.sort(logits[tied], dim=1, descending=True, stable=True)
        values[tied], ids[tied] = in_order[:, :k], places[:, :k]
    return values, ids


def _some_largest(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest in descending order, of equal ones any.

    Of groups of outcomes, the k with the largest maxima hold the k largest values: whatever lies elsewhere has k
    maxima that are at least as large. So a few small searches do the work of one in a long row.
    """
    rows, outcomes = logits.shape
    groups = outcomes // _GROUP
    if groups < 2 * k:
        return torch.topk(logits, k, dim=1)
    # Group g holds the outcomes g, g + groups, g + 2 * groups, ...: maxima over them are taken across whole runs.
    grouped = groups * _GROUP
    _, chosen = _some_largest(logits[:, :grouped].view(rows, _GROUP, groups).amax(1), k)
    members = torch.arange(0, grouped, groups, device=logits.device)
    candidates = (chosen.unsqueeze(2) + members).view(rows, k * _GROUP)
    if grouped < outcomes:
        rest = torch.arange(grouped, outcomes, device=logits.device).expand(rows, -1)
        candidates = torch.cat([candidates, rest], dim=1)
    values, places = torch.topk(logits.gather(1, candidates), k, dim=1)
    return values, candidates.gather(1, places)
