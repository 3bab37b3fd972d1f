"""The ONNX variants of one network: which weights, activations and tables have how many bits."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from components.compression.codebook import with_codebook_linears
from components.compression.graph import convolution_nodes, linear_nodes, rectified, tidied
from components.compression.product import with_product_table
from components.compression.running import first_feeds, input_moments
from components.compression.table_rounding import FineTune, with_rounded_tables
from components.compression.tables import with_int8_positions, with_row_linears
from components.settings.quantization import GraphForm, QuantizationSettings, VariantName
from components.tasks.batch import Feed


class Bits(NamedTuple):
    """Bits a value of a variant's weights (of linear layers, in 8 bits of convolutions too), of their inputs and
    of its item table (scales come on top)."""

    weight: int
    activation: int
    table: int


BITS: dict[GraphForm, Bits] = {
    "fp32": Bits(32, 32, 32),
    "int8_dynamic": Bits(8, 8, 32),
    "int8_dynamic_tensor": Bits(8, 8, 32),
    "int8_static": Bits(8, 8, 32),
    "int8_table8": Bits(8, 8, 8),
    "int8_table4": Bits(8, 8, 4),
    "int4_table4": Bits(4, 32, 4),
    "kmeans8_table8": Bits(8, 32, 8),
    "int4_table2": Bits(4, 32, 2),
    "int4_product": Bits(4, 32, 2),
}


def bits_of(form: VariantName, settings: QuantizationSettings) -> Bits:
    """Bits of a variant; of a product-quantized table, those of its codes."""
    if form == "int8_index":
        return Bits(8, 8, 8)
    return BITS[form]._replace(table=8 // settings.product_width) if form == "int4_product" else BITS[form]


def quantized(
    model: onnx.ModelProto,
    variant: GraphForm,
    settings: QuantizationSettings,
    calibration: Sequence[Feed],
    fine_tune: FineTune | None = None,
) -> onnx.ModelProto:
    """One variant of an exported model; ``model`` stays as it is, and the same inputs give the same bytes.

    Tables are stored once in every variant, since only linear layers and convolutions are given to ONNX Runtime's
    quantizers.

    Args:
        model: From :func:`export_onnx`.
        variant: Which one.
        settings: Block and codebook sizes, and how weights are rounded.
        calibration: Inputs of training histories: for the activation ranges of ``int8_static``, and for what linear
            layers and tables of few bits are multiplied with.
        fine_tune: See :func:`~components.compression.table_rounding.with_rounded_tables`.
    """
    match variant:
        case "fp32":
            return _copied(model)
        case "int8_dynamic" | "int8_dynamic_tensor":
            return tidied(_dynamic(model, per_channel=variant == "int8_dynamic"))
        case "int8_static":
            return tidied(_static(_copied(model), calibration))
        case "int4_product":
            linears = _with_few_bits(model, settings, calibration)
            return tidied(with_int8_positions(with_product_table(linears, settings.product_width)))
        case "int8_table8" | "int8_table4":
            finish = partial(_dynamic, per_channel=True)
        case "int4_table4" | "int4_table2":
            finish = partial(_with_few_bits, settings=settings, calibration=calibration)
        case "kmeans8_table8":
            finish = partial(_with_codebook, settings=settings)
    return with_rounded_tables(finish, model, BITS[variant].table, settings, calibration, fine_tune=fine_tune)


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _with_few_bits(
    model: onnx.ModelProto, settings: QuantizationSettings, calibration: Sequence[Feed]
) -> onnx.ModelProto:
    return with_row_linears(_copied(model), 4, settings.table_block, _input_moments(model, settings, calibration))


def _with_codebook(model: onnx.ModelProto, settings: QuantizationSettings) -> onnx.ModelProto:
    return with_codebook_linears(_copied(model), settings.kmeans_levels)


def _input_moments(
    model: onnx.ModelProto, settings: QuantizationSettings, calibration: Sequence[Feed]
) -> dict[str, np.ndarray] | None:
    if settings.rounding == "nearest" or not calibration:
        return None
    return input_moments(model, first_feeds(calibration))


class _Calibration(CalibrationDataReader):
    """Hands one feed after the other to ONNX Runtime's calibrator."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


def _dynamic(model: onnx.ModelProto, *, per_channel: bool) -> onnx.ModelProto:
    model = _copied(model)
    if not (names := _names(_weighted(model.graph))):
        return model  # ONNX Runtime takes no name for every name.
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul", "Conv"],
            nodes_to_quantize=names,
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)


def _static(model: onnx.ModelProto, calibration: Sequence[Feed]) -> onnx.ModelProto:
    convolved = rectified(model.graph, convolution_nodes(model.graph))
    if not (names := _names([*_weighted(model.graph), *convolved])):
        return model
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_static(
            model,
            path,
            _Calibration(calibration),
            quant_format=QuantFormat.QDQ,
            # Its default would quantize every operator it knows, the attention mask among them.
            # What follows a convolution directly stays in int8 with it.
            op_types_to_quantize=["MatMul", "Conv", "Relu", "MaxPool"],
            nodes_to_quantize=names,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(path)


def _weighted(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes of linear and convolutional layers."""
    return [*linear_nodes(graph), *convolution_nodes(graph)]


def _names(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    return [node.name for node in nodes]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without ONNX Runtime's advice to run a pre-processing that would store the item table twice."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
