"""Which codes an item table of few bits gets, and whether all else is fitted to them: what changes a network's answers
least."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from rich.console import Console
from scipy.special import log_softmax

from components.compression.encoder import split_at_head
from components.compression.gptq import Products
from components.compression.graph import array, tidied
from components.compression.rowwise import RowBlocks
from components.compression.running import first_feeds, outputs_of
from components.compression.tables import (
    multiplied_tables,
    rounded_tables,
    with_int8_positions,
    with_quantized_tables,
)
from components.errors import CompressionError
from components.settings.quantization import QuantizationSettings
from components.tasks.batch import Feed

_SCORES = 2**25  # Held at once, 128 MiB, where answers are compared; at least one feed is.


FineTune = Callable[[Mapping[str, np.ndarray]], "onnx.ModelProto | None"]
"""From the rounded tables by name in the graph, ``(rows, width)``, to the fp32 graph of the network whose other weights
were fitted to them; None where they cannot be."""


def with_rounded_tables(
    finish: Callable[[onnx.ModelProto], onnx.ModelProto],
    model: onnx.ModelProto,
    bits: int,
    settings: QuantizationSettings,
    calibration: Sequence[Feed],
    *,
    fine_tune: FineTune | None = None,
) -> onnx.ModelProto:
    """Quantize the tables of a model.

    Rows that scores are products with are often looked up in histories too: what is won at the one end may be lost at
    the other. So whole requests are compared, and of the nearest codes, those that are chosen for the products, and
    those with all else fitted to them, the ones are taken with which answers differ least.

    Args:
        finish: Quantizes a copy of all but the tables.
        model: A network in fp32.
        bits: Of a value of the tables.
        settings: Block size, and whether tables of fewer than eight bits are rounded by what comes out.
        calibration: Requests of training histories.
        fine_tune: Fits all else to tables of fewer than eight bits. None: it stays as it is.
    """
    nearest = rounded_tables(model, bits, settings.table_block)
    linears = finish(model)
    made = [(nearest, _with_tables(linears, nearest))]
    by_output = bits < 8 and settings.rounding == "gptq"
    products = _products(model, calibration) if by_output else None
    if products is not None:
        chosen = rounded_tables(model, bits, settings.table_block, products)
        made.append((chosen, _with_tables(linears, chosen)))
    if bits == 8 or not nearest or not calibration or (len(made) == 1 and fine_tune is None):
        return made[0][1]
    compared = first_feeds(calibration, min(512, _SCORES // max(len(rows.codes) for rows in nearest.values())))
    expected = _log_probabilities(model, compared)

    def divergence(one: onnx.ModelProto) -> float:
        return _divergence(expected, _log_probabilities(one, compared))

    errors = [divergence(one) for _, one in made]
    least = min(errors)
    tables, best = made[errors.index(least)]
    fitted = None if fine_tune is None else fine_tune({name: rows.restored() for name, rows in tables.items()})
    if fitted is None:
        return best
    other = _with_tables(finish(fitted), tables)
    after = divergence(other)
    taken = after < least
    Console(highlight=False, soft_wrap=True).print(
        f"fine-tuned to the table of {bits} bits: {least:.4g} to {after:.4g} nats a request from fp32"
        f"{'' if taken else ', not taken'}"
    )
    return other if taken else best


def _with_tables(linears: onnx.ModelProto, tables: Mapping[str, RowBlocks]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(linears)
    return tidied(with_int8_positions(with_quantized_tables(copy, tables)))


def _log_probabilities(model: onnx.ModelProto, feeds: Sequence[Feed]) -> np.ndarray:
    """``(rows, K)``, of a softmax over the scores of each request."""
    found: np.ndarray = log_softmax(outputs_of(model, feeds), axis=1)
    return found


def _divergence(expected: np.ndarray, found: np.ndarray) -> float:
    """Kullback-Leibler, in nats a request."""
    divergence = float((np.exp(expected) * (expected - found)).sum(axis=1).mean())
    return divergence if np.isfinite(divergence) else np.inf


def _products(model: onnx.ModelProto, calibration: Sequence[Feed]) -> Products | None:
    """What items are multiplied with in the calibration requests; None where scores are no such products."""
    if not calibration or not (tables := multiplied_tables(model.graph)):
        return None
    try:
        encoder, items = split_at_head(model)
    except CompressionError:
        return None
    # Where items have a bias, the vectors end with a 1, and the items with their bias.
    width = array(model.graph, tables[-1]).shape[1]
    bias = items[:, width] if items.shape[1] > width else None
    return Products(outputs_of(encoder, calibration)[:, :width], bias)
