"""Which codes an item table of few bits gets: those with which a network's answers change least."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from scipy.special import log_softmax

from components.compression.encoder import split_at_head
from components.compression.gptq import Products
from components.compression.graph import array, tidied
from components.compression.running import first_feeds, outputs_of
from components.compression.tables import multiplied_tables, with_int8_positions, with_quantized_table
from components.errors import CompressionError
from components.settings.quantization import QuantizationSettings
from components.tasks.batch import Feed

_SCORES = 2**25  # Held at once, 128 MiB, where answers are compared; at least one feed is.


def with_rounded_table(
    linears: onnx.ModelProto,
    model: onnx.ModelProto,
    bits: int,
    settings: QuantizationSettings,
    calibration: Sequence[Feed],
) -> onnx.ModelProto:
    """Quantize the tables of a model whose linear layers are done.

    Rows that scores are products with are often looked up in histories too: what is won at the one end may be lost at
    the other. So whole requests are compared, and the codes that are chosen for the products are taken where those
    answers differ less than with the nearest ones.

    Args:
        linears: Stays as it is.
        model: The same network in fp32.
        bits: Of a value of the tables.
        settings: Block size, and whether tables of fewer than eight bits are rounded by what comes out.
        calibration: Requests of training histories.
    """
    nearest = _finished(linears, bits, settings, None)
    if bits == 8 or settings.rounding == "nearest" or (products := _products(model, calibration)) is None:
        return nearest
    rows = max(len(array(model.graph, name)) for name in multiplied_tables(model.graph))
    compared = first_feeds(calibration, min(512, _SCORES // rows))
    expected = _log_probabilities(model, compared)
    made = [nearest, _finished(linears, bits, settings, products)]
    return min(made, key=lambda one: _divergence(expected, _log_probabilities(one, compared)))


def _finished(
    linears: onnx.ModelProto, bits: int, settings: QuantizationSettings, products: Products | None
) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(linears)
    return tidied(with_int8_positions(with_quantized_table(copy, bits, settings.table_block, products)))


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
