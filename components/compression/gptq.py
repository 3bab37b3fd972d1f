"""Codes of few bits that are chosen for what comes out, and not for the weights themselves.

The score of item i is ``h @ row`` for the vector ``h`` of a history. An error ``e`` in its row moves the network's
distribution by ``KL = e M_i e^T / 2`` to second order, with ``M_i = E[p_i(h) (1 - p_i(h)) h^T h]``: the block of that
row in the Fisher information of a softmax. So an error counts for the histories that the item is likely for, and an
error in one dimension can be made up for in others. GPTQ (Frantar et al., ICLR 2023) rounds one dimension after the
other and moves what it errs to those that are still to come; it has one such matrix for all rows, here each has its
own. From there each code in turn is set to its best value while the others stay (coordinate descent, as in QuantEase,
Behdin et al., 2023), and scales are fitted to the codes by least squares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

from components.compression.rowwise import RowBlocks, quantized_rows, with_codes
from components.soft_labels.progress import RowProgress

# Parts of the matrix of a row, whose own part has a mean diagonal of 1. That of all histories stands in for those that
# were not seen; the identity keeps a row near to itself, for where it is looked up as a part of a history.
_OF_ALL, _OF_LOOKUPS = 0.1, 0.3
_DAMPING = 0.01  # Of a layer's matrix, as a share of its mean diagonal: as in GPTQ.
_HISTORIES_A_ROW = 512  # Those that the item is likeliest for; the others have hardly any weight.
_SWEEPS, _FITS = 3, 3
_ROWS_AT_ONCE = 128
_VALUES_AT_ONCE = 2**22  # Of the matrices of rows, 32 MiB.
_SCORED_AT_ONCE = 4096
_SHOWN_FROM = 20_000  # Rows; fewer take some seconds.


class Products(NamedTuple):
    """What the rows of a table are multiplied with.

    Attributes:
        vectors: ``(n, width)``, of histories.
        bias: ``(rows,)``, what is added to the products; None: nothing.
    """

    vectors: np.ndarray
    bias: np.ndarray | None = None


def gptq_rows(matrix: np.ndarray, bits: int, largest_block: int, products: Products) -> RowBlocks:
    """Quantize a matrix so that a softmax over products with its rows changes little.

    By the second-order term above no row changes it more than rounded to the nearest codes.

    Args:
        matrix: ``(rows, width)`` float32.
        bits: 2 or 4.
        largest_block: Columns that may share a scale, see :func:`~components.compression.rowwise.best_block`.
        products: Of ``width`` dimensions.
    """
    start = quantized_rows(matrix, bits, largest_block)
    codes, levels = np.empty(matrix.shape, np.int8), start.levels.copy()
    shown = len(matrix) >= _SHOWN_FROM
    # A sum is split among threads, and so their number would be a part of the codes.
    with threadpool_limits(1), RowProgress(len(matrix), "choosing codes", show=shown) as progress:
        for part, moments in row_moments(matrix, products):
            codes[part], levels[part] = _Part(matrix[part], start.levels[part], start, moments).fitted()
            progress.advance(len(moments))
    return with_codes(start._replace(levels=levels), codes)


def gptq_layer(matrix: np.ndarray, bits: int, largest_block: int, moment: np.ndarray) -> RowBlocks:
    """Quantize the weights of a linear layer so that its outputs err little, by GPTQ as it is.

    Args:
        matrix: ``(out, in)`` float32.
        bits: 2 or 4.
        largest_block: Columns that may share a scale.
        moment: ``(in, in)``, sum of ``x^T x`` over inputs of the layer; any scale.
    """
    start = quantized_rows(matrix, bits, largest_block)
    diagonal = max(float(np.trace(moment)) / len(moment), np.finfo(np.float64).tiny)
    damped = (moment / diagonal + _DAMPING * np.eye(len(moment)))[None]
    with threadpool_limits(1):
        codes, levels = _Part(matrix, start.levels, start, damped).fitted()
    return with_codes(start._replace(levels=levels), codes)


def row_moments(matrix: np.ndarray, products: Products) -> Iterator[tuple[slice, np.ndarray]]:
    """Some rows after the other, and the matrix by which an error in each counts: ``(R, width, width)`` float64.

    Args:
        matrix: ``(rows, width)`` float32.
        products: Of ``width`` dimensions.
    """
    vectors = np.ascontiguousarray(products.vectors, np.float32)
    bias = np.zeros(len(matrix), np.float32) if products.bias is None else products.bias.astype(np.float32)
    normalizers = _normalizers(vectors, matrix, bias)
    width = matrix.shape[1]
    of_all = vectors.T.astype(np.float64) @ vectors
    rest = _OF_ALL * of_all / max(np.trace(of_all) / width, np.finfo(np.float64).tiny) + _OF_LOOKUPS * np.eye(width)
    most = min(_HISTORIES_A_ROW, len(vectors))
    together = max(1, min(_ROWS_AT_ONCE, _VALUES_AT_ONCE // width**2))
    for first in range(0, len(matrix), together):
        part = slice(first, first + together)
        likely = np.exp(matrix[part] @ vectors.T + bias[part, None] - normalizers)  # (R, n)
        likely = np.minimum(likely, 1)  # a rounded sum may be a little less than one of its terms
        weights = likely * (1 - likely)
        chosen = np.argpartition(-weights, most - 1, axis=1)[:, :most]
        near = vectors[chosen]
        weighted = near * np.take_along_axis(weights, chosen, axis=1)[..., None]
        own = np.matmul(weighted.transpose(0, 2, 1), near).astype(np.float64)
        diagonal = np.trace(own, axis1=1, axis2=2) / width
        # Where an item is likely for no history, what is known of all histories is all that is known.
        own /= np.maximum(diagonal, np.finfo(np.float32).tiny)[:, None, None]
        yield part, own + rest


def _normalizers(vectors: np.ndarray, matrix: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """``(n,)``, logarithm of the sum of ``exp(score)``."""
    total = np.full(len(vectors), -np.inf, np.float32)
    for first in range(0, len(matrix), _SCORED_AT_ONCE):
        part = slice(first, first + _SCORED_AT_ONCE)
        total = np.logaddexp(total, logsumexp(vectors @ matrix[part].T + bias[part], axis=1))
    return total


class _Part:
    """Some rows on the way to their codes.

    Args:
        rows: ``(R, width)`` float32.
        levels: ``(R, blocks)`` of the nearest codes.
        of: What they are a part of.
        moments: ``(R, width, width)`` float64, each positive definite, or one for all rows.
    """

    def __init__(self, rows: np.ndarray, levels: np.ndarray, of: RowBlocks, moments: np.ndarray) -> None:
        self._rows, self._moments = rows.astype(np.float64), moments
        self._levels, self._unit, self._block = levels.astype(np.float64), float(of.unit), of.block
        self._least, self._most = -(2 ** (of.bits - 1)), 2 ** (of.bits - 1) - 1
        self._most_level = 255 if of.bits > 2 else 127
        self._kind = levels.dtype

    def fitted(self) -> tuple[np.ndarray, np.ndarray]:
        """Codes ``(R, width)`` int8 around 0, and levels ``(R, blocks)``."""
        scales, levels = self._scales(), self._levels.copy()
        nearest = self._nearest(self._rows / scales)
        at_first = self._errors(nearest)
        codes = self._fed_back(scales)
        self._descend(codes)
        for _ in range(_FITS):
            self._fit_scales(codes)
            self._descend(codes)
        better = (self._errors(codes) < at_first)[:, None]
        kept = np.where(better, self._levels, levels)
        return np.where(better, codes, nearest).astype(np.int8), kept.astype(self._kind)

    def _scales(self) -> np.ndarray:
        """``(R, width)``."""
        scales: np.ndarray = np.repeat(self._levels * self._unit, self._block, axis=1)[:, : self._rows.shape[1]]
        return scales

    def _nearest(self, values: np.ndarray) -> np.ndarray:
        codes: np.ndarray = np.clip(np.rint(values), self._least, self._most)
        return codes

    def _slopes(self, codes: np.ndarray) -> np.ndarray:
        """``(R, width)``, ``e M``."""
        return self._times(self._rows - codes * self._scales())

    def _times(self, rows: np.ndarray) -> np.ndarray:
        product: np.ndarray = np.matmul(rows[:, None], self._moments)[:, 0]
        return product

    def _errors(self, codes: np.ndarray) -> np.ndarray:
        """``(R,)``, ``e M e^T``."""
        error = self._rows - codes * self._scales()
        errors: np.ndarray = (self._times(error) * error).sum(axis=1)
        return errors

    def _fed_back(self, scales: np.ndarray) -> np.ndarray:
        # The factor of the inverse holds, for each dimension, how the later ones make up for it (GPTQ, section 3.3).
        upper = np.linalg.cholesky(np.linalg.inv(self._moments)).transpose(0, 2, 1)
        left, codes = self._rows.copy(), np.empty_like(self._rows)
        for column in range(left.shape[1]):
            codes[:, column] = self._nearest(left[:, column] / scales[:, column])
            error = (left[:, column] - codes[:, column] * scales[:, column]) / upper[:, column, column]
            left[:, column + 1 :] -= error[:, None] * upper[:, column, column + 1 :]
        return codes

    def _descend(self, codes: np.ndarray) -> None:
        """Set each code to its best value in turn, in place."""
        scales, slopes = self._scales(), self._slopes(codes)
        for _ in range(_SWEEPS):
            for column in range(codes.shape[1]):
                scale, own = scales[:, column], self._moments[:, column, column]
                best = self._nearest(codes[:, column] + slopes[:, column] / (own * scale))
                slopes -= ((best - codes[:, column]) * scale)[:, None] * self._moments[:, column]
                codes[:, column] = best

    def _fit_scales(self, codes: np.ndarray) -> None:
        """Set the level of each block in turn to the best one, where that is better, in place."""
        slopes = self._slopes(codes)
        for block in range(self._levels.shape[1]):
            columns = slice(block * self._block, (block + 1) * self._block)
            inside = np.zeros_like(codes)
            inside[:, columns] = codes[:, columns]
            moved = self._times(inside)
            weight, slope = (moved * inside).sum(axis=1), (slopes * inside).sum(axis=1)
            old = self._levels[:, block]
            best = old + slope / np.maximum(weight * self._unit, np.finfo(np.float64).tiny)
            # A level keeps its sign, which with two bits says which side is longer.
            new = np.sign(old) * np.clip(np.rint(best * np.sign(old)), 1, self._most_level)
            step = (new - old) * self._unit
            step[step * (step * weight - 2 * slope) >= 0] = 0
            slopes -= step[:, None] * moved
            self._levels[:, block] = np.where(step == 0, old, new)
