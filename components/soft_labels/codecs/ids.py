"""Ids of outcomes in the smallest integer type that holds them: 16, 24 or 32 bits."""

from __future__ import annotations

import numpy as np
import torch

from components.soft_labels.codecs.base import Column

_BYTE = np.dtype(np.uint8)
_WORD = np.dtype("<i4")
_THREE_BYTES = 1 << 24


def id_column(outcomes: int, k: int) -> Column:
    """The form of k ids a row below ``outcomes``; 24 bits are three bytes, the lowest first."""
    if outcomes <= 1 << 16:
        return Column(np.dtype("<u2"), (k,))
    return Column(_BYTE, (k, 3)) if outcomes <= _THREE_BYTES else Column(_WORD, (k,))


def packed_ids(ids: torch.Tensor, outcomes: int) -> np.ndarray:
    """Ids ``(N, k)`` int64 as they are stored."""
    column = id_column(outcomes, ids.shape[1])
    numbers = ids.cpu().numpy()
    if column.dtype != _BYTE:
        return numbers.astype(column.dtype)
    return np.ascontiguousarray(numbers.astype(_WORD)[..., None].view(_BYTE)[..., :3])


def unpacked_ids(stored: np.ndarray, outcomes: int) -> torch.Tensor:
    """``(N, k)`` int64 of stored ids."""
    if id_column(outcomes, stored.shape[1]).dtype != _BYTE:
        return torch.from_numpy(stored.astype(np.int64))
    words = np.zeros((*stored.shape[:2], 4), dtype=_BYTE)
    words[..., :3] = stored
    return torch.from_numpy(words.view(_WORD)[..., 0].astype(np.int64))
