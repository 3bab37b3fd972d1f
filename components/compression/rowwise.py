"""Matrices of few bits a value: rows in blocks, a scale a block, the scales in 8 bits themselves.

A value is ``(code - 2^(bits-1)) * scale`` with ``scale = level * unit``: an integer level of 1 to 255 a block and one
unit a matrix. Quantizing the scales too is QLoRA's double quantization (Dettmers et al., 2023, section 3). Codes are
chosen after the levels are rounded, so that a rounded scale costs resolution and never shifts a row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SMALLEST_BLOCK = 16  # What ONNX Runtime's MatMulNBits and GatherBlockQuantized take.
# Shares of a block's largest magnitude that are tried as its range. Four bits gain by clipping outliers; eight do not.
_RANGES = {8: np.array([1.0], np.float32), 4: np.linspace(0.7, 1.1, 17, dtype=np.float32)}


class RowBlocks(NamedTuple):
    """A quantized ``(rows, width)`` matrix.

    Attributes:
        codes: ``(rows, blocks, block * bits / 8)`` uint8; four-bit codes are packed two a byte, the first one low.
        levels: ``(rows, blocks)`` uint8.
        unit: Scale of level 1.
        width: Columns that count; the last block may be padded.
        block: Columns a block.
        bits: 4 or 8.
    """

    codes: np.ndarray
    levels: np.ndarray
    unit: np.float32
    width: int
    block: int
    bits: int

    def restored(self) -> np.ndarray:
        """What the codes stand for, ``(rows, width)`` float32."""
        codes = self.codes
        if self.bits == 4:
            codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:2], -1)
        scales = self.levels.astype(np.float32) * self.unit
        values = (codes.astype(np.float32) - 2 ** (self.bits - 1)) * scales[..., None]
        return values.reshape(len(values), -1)[:, : self.width]


def best_block(width: int, largest: int, bits: int) -> int:
    """The block that stores rows of ``width`` in the fewest bytes, at most ``largest`` columns (a power of two)."""
    sizes = [SMALLEST_BLOCK << power for power in range(16) if SMALLEST_BLOCK << power <= largest]
    return min(sizes, key=lambda size: -(-width // size) * (size * bits // 8 + 1))


def quantized_rows(matrix: np.ndarray, bits: int, largest_block: int) -> RowBlocks:
    """Quantize a matrix, with the range of each block that gives the least squared error.

    Args:
        matrix: ``(rows, width)`` float32.
        bits: 4 or 8.
        largest_block: Columns that may share a scale, see :func:`best_block`.
    """
    rows, width = matrix.shape
    block = best_block(width, largest_block, bits)
    padded = np.zeros((rows, -(-width // block) * block), np.float32)
    padded[:, :width] = matrix
    blocks = padded.reshape(rows, -1, block)
    top = 2 ** (bits - 1) - 1
    scales = np.abs(blocks).max(axis=-1) / top
    unit = np.float32(max(scales.max() * _RANGES[bits].max() / 255, np.finfo(np.float32).tiny))
    best_error = np.full(scales.shape, np.inf, np.float32)
    best_levels = np.ones(scales.shape, np.uint8)
    for share in _RANGES[bits]:
        levels = np.clip(np.ceil(scales * share / unit - 1e-4), 1, 255).astype(np.uint8)
        error = np.square(_codes(blocks, levels, unit, top) * (levels * unit)[..., None] - blocks).sum(axis=-1)
        better = error < best_error
        best_error, best_levels = np.where(better, error, best_error), np.where(better, levels, best_levels)
    codes = (_codes(blocks, best_levels, unit, top) + top + 1).astype(np.uint8)
    if bits == 4:
        codes = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return RowBlocks(codes, best_levels, unit, width, block, bits)


def _codes(blocks: np.ndarray, levels: np.ndarray, unit: np.float32, top: int) -> np.ndarray:
    return np.clip(np.rint(blocks / (levels * unit)[..., None]), -top - 1, top)
