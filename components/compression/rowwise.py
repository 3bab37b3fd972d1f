"""Matrices of few bits a value: rows in blocks, a scale a block, the scales in 8 bits themselves.

A value is ``(code - 2^(bits-1)) * scale`` with ``scale = level * unit``: an integer level a block and one unit a
matrix. Quantizing the scales too is QLoRA's double quantization (Dettmers et al., 2023, section 3). Codes are chosen
after the levels are rounded, so that a rounded scale costs resolution and never shifts a row.

Two bits have the values -2, -1, 0 and 1: there a level may be negative, so that the longer side is where a block needs
it. With more bits the sides hardly differ, and levels are positive.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SMALLEST_BLOCK = 16  # What ONNX Runtime's MatMulNBits and GatherBlockQuantized take.
# Shares of a block's largest magnitude, over the largest code, that are tried as its scale. Few bits gain by clipping
# outliers; eight do not.
_RANGES = {
    8: np.array([1.0], np.float32),
    4: np.linspace(0.7, 1.1, 17, dtype=np.float32),
    2: np.linspace(0.25, 1.0, 26, dtype=np.float32),
}


class RowBlocks(NamedTuple):
    """A quantized ``(rows, width)`` matrix.

    Attributes:
        codes: ``(rows, blocks, block * bits / 8)`` uint8; smaller codes are packed in a byte, the first one lowest.
        levels: ``(rows, blocks)``, uint8 of 1 to 255, or with two bits int8 of -127 to 127 without 0.
        unit: Scale of level 1.
        width: Columns that count; the last block may be padded.
        block: Columns a block.
        bits: 2, 4 or 8.
    """

    codes: np.ndarray
    levels: np.ndarray
    unit: np.float32
    width: int
    block: int
    bits: int

    def restored(self) -> np.ndarray:
        """What the codes stand for, ``(rows, width)`` float32."""
        per_byte = 8 // self.bits
        shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(self.bits)
        codes = (self.codes[..., None] >> shifts) & np.uint8(2**self.bits - 1)
        codes = codes.reshape(*self.codes.shape[:2], -1)
        values = (codes.astype(np.float32) - 2 ** (self.bits - 1)) * self.scales[..., None]
        return values.reshape(len(values), -1)[:, : self.width]

    @property
    def scales(self) -> np.ndarray:
        """``(rows, blocks)`` float32."""
        return self.levels.astype(np.float32) * self.unit


def best_block(width: int, largest: int, bits: int) -> int:
    """The block that stores rows of ``width`` in the fewest bytes, at most ``largest`` columns (a power of two)."""
    sizes = [SMALLEST_BLOCK << power for power in range(16) if SMALLEST_BLOCK << power <= largest]
    return min(sizes, key=lambda size: -(-width // size) * (size * bits // 8 + 1))


def quantized_rows(matrix: np.ndarray, bits: int, largest_block: int, start: RowBlocks | None = None) -> RowBlocks:
    """Quantize a matrix, with the range of each block that gives the least squared error.

    Args:
        matrix: ``(rows, width)`` float32.
        bits: 2, 4 or 8.
        largest_block: Columns that may share a scale, see :func:`best_block`.
        start: Of a matrix that was much the same: its ranges are taken, and none are searched.
    """
    rows, width = matrix.shape
    block = best_block(width, largest_block, bits)
    padded = np.zeros((rows, -(-width // block) * block), np.float32)
    padded[:, :width] = matrix
    blocks = padded.reshape(rows, -1, block)
    top = 2 ** (bits - 1) - 1
    if start is not None:
        codes = (_codes(blocks, start.levels, start.unit, top) + top + 1).astype(np.uint8)
        return start._replace(codes=_packed(codes, bits))
    largest_level = 255 if bits > 2 else 127
    scales = np.abs(blocks).max(axis=-1) / top
    unit = np.float32(max(scales.max() * _RANGES[bits].max() / largest_level, np.finfo(np.float32).tiny))
    best_error = np.full(scales.shape, np.inf, np.float32)
    best_levels = np.ones(scales.shape, np.uint8 if bits > 2 else np.int8)
    for share in _RANGES[bits]:
        positive = np.clip(np.ceil(scales * share / unit - 1e-4), 1, largest_level).astype(best_levels.dtype)
        for levels in (positive,) if bits > 2 else (positive, -positive):
            error = np.square(_codes(blocks, levels, unit, top) * (levels * unit)[..., None] - blocks).sum(axis=-1)
            better = error < best_error
            best_error, best_levels = np.where(better, error, best_error), np.where(better, levels, best_levels)
    codes = (_codes(blocks, best_levels, unit, top) + top + 1).astype(np.uint8)
    return RowBlocks(_packed(codes, bits), best_levels, unit, width, block, bits)


def with_codes(rows: RowBlocks, codes: np.ndarray) -> RowBlocks:
    """The same blocks with other codes.

    Args:
        rows: Whose levels count.
        codes: ``(rows, width)`` integers around 0: with four bits of -8 to 7.
    """
    count, width = codes.shape
    middle = 2 ** (rows.bits - 1)
    padded = np.full((count, rows.levels.shape[1] * rows.block), middle, np.uint8)
    padded[:, :width] = codes.astype(np.int16) + middle
    return rows._replace(codes=_packed(padded.reshape(count, -1, rows.block), rows.bits))


def _codes(blocks: np.ndarray, levels: np.ndarray, unit: np.float32, top: int) -> np.ndarray:
    return np.clip(np.rint(blocks / (levels * unit)[..., None]), -top - 1, top)


def _packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """As many codes a byte as it holds, the first one lowest."""
    per_byte = 8 // bits
    packed = codes[..., 0::per_byte].copy()
    for place in range(1, per_byte):
        packed |= codes[..., place::per_byte] << np.uint8(place * bits)
    return packed
