"""ONNX graphs whose table is stored once, in few bits, and read by the lookup and, where there is one, by the head.

``GatherBlockQuantized`` restores the rows that it looks up and no others; ``MatMulNBits`` multiplies by the same stored
codes. A ``DequantizeLinear`` before a plain Gather would expand the whole table at every call instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper

from components.compression.gptq import Products, gptq_layer, gptq_rows
from components.compression.graph import (
    array,
    drop,
    initializer,
    linear_nodes,
    lookup_tables,
    prepend,
    readers,
    replace_node,
    store,
)
from components.compression.rowwise import RowBlocks, quantized_rows

CONTRIB = "com.microsoft"
HEAD, POSITIONS = "output", "position"


class StoredRows(NamedTuple):
    """A quantized matrix in a graph.

    Attributes:
        codes: Name of its codes.
        scales: Name of the scales ``(rows, blocks)`` float32 that are restored at load.
        rows: What they are.
    """

    codes: str
    scales: str
    rows: RowBlocks


def rounded_tables(
    model: onnx.ModelProto, bits: int, largest_block: int, products: Products | None = None
) -> dict[str, RowBlocks]:
    """Every table that rows are looked up in, and an untied head, in few bits, by name; ``model`` stays as it is.

    Args:
        model: From :func:`export_onnx`.
        bits: 2, 4 or 8.
        largest_block: Columns of a row that may share a scale.
        products: That scores are, see :func:`~components.compression.gptq.gptq_rows`. None: each value gets the nearest
            code.
    """
    graph = model.graph
    multiplied = [] if products is None else multiplied_tables(graph)
    return {
        name: gptq_rows(array(graph, name), bits, largest_block, products)
        if products is not None and name in multiplied
        else quantized_rows(array(graph, name), bits, largest_block)
        for name in _tables(graph)
    }


def with_quantized_tables(model: onnx.ModelProto, tables: Mapping[str, RowBlocks]) -> onnx.ModelProto:
    """Store the tables in few bits, in place.

    Args:
        model: From :func:`export_onnx`, or from a quantizer that left table and head alone.
        tables: All of it, from :func:`rounded_tables`.
    """
    graph = model.graph
    for name, rows in tables.items():
        stored = _stored(model, name, rows)
        for node in readers(graph, name):
            if node.op_type == "Gather":
                replace_node(graph, node, _lookup(graph, node, stored))
            else:
                (product,) = readers(graph, node.output[0])
                replace_node(graph, node, [])
                replace_node(graph, product, [_product(product.input[0], product.output[0], stored)])
        drop(graph, name)
    return model


def multiplied_tables(graph: onnx.GraphProto) -> list[str]:
    """The tables that scores are products with; others are only looked up in."""
    return [name for name in _tables(graph) if any(node.op_type != "Gather" for node in readers(graph, name))]


def with_row_linears(
    model: onnx.ModelProto, bits: int, largest_block: int, moments: Mapping[str, np.ndarray] | None = None
) -> onnx.ModelProto:
    """Quantize the weights of the linear layers like rows of a table, one row an output channel, in place.

    Args:
        model: From :func:`export_onnx`.
        bits: 2, 4 or 8.
        largest_block: Columns of a row that may share a scale.
        moments: Of the inputs of each, by the weights' name, see :func:`~components.compression.gptq.gptq_layer`. None:
            each value gets the nearest code.
    """
    graph = model.graph
    for node in linear_nodes(graph):
        name, output, bias = node.input[1], node.output[0], ""
        columns = np.ascontiguousarray(array(graph, name).T)
        if moments is None:
            rows = quantized_rows(columns, bits, largest_block)
        else:
            rows = gptq_layer(columns, bits, largest_block, moments[name])
        stored = _stored(model, name, rows)
        (reader,) = readers(graph, output)
        if reader.op_type == "Add":
            bias = next((other for other in reader.input if initializer(graph, other) is not None), "")
        if bias:
            output = reader.output[0]
            replace_node(graph, reader, [])
        replace_node(graph, node, [_product(node.input[0], output, stored, bias)])
        drop(graph, name)
    return model


def with_int8_positions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store the position table as int8 with a scale a row, in place; runtimes restore it when they load the model."""
    graph = model.graph
    if initializer(graph, POSITIONS) is None:
        return model
    table = array(graph, POSITIONS)
    unit = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
    drop(graph, POSITIONS)
    _restored(graph, POSITIONS, np.rint(table / unit).astype(np.int8), unit)
    return model


def _tables(graph: onnx.GraphProto) -> list[str]:
    return [*lookup_tables(graph), *([HEAD] if initializer(graph, HEAD) is not None else [])]


def _stored(model: onnx.ModelProto, name: str, rows: RowBlocks) -> StoredRows:
    if not any(imported.domain == CONTRIB for imported in model.opset_import):
        model.opset_import.append(helper.make_opsetid(CONTRIB, 1))
    codes = store(model.graph, f"{name}.codes", rows.codes)
    return StoredRows(codes, _restored(model.graph, f"{name}.scales", rows.levels, np.asarray(rows.unit)), rows)


def _restored(graph: onnx.GraphProto, name: str, small: np.ndarray, unit: np.ndarray) -> str:
    """Store ``small * unit`` as its factors, which runtimes multiply once, when they load the model; gives its name."""
    stored, factor = store(graph, f"{name}.levels", small), store(graph, f"{name}.unit", unit.astype(np.float32))
    wide = f"{name}.wide"
    cast = helper.make_node("Cast", [stored], [wide], to=TensorProto.FLOAT)
    prepend(graph, [cast, helper.make_node("Mul", [wide, factor], [name])])
    return name


def _product(x: str, y: str, stored: StoredRows, bias: str = "") -> onnx.NodeProto:
    """``y = x @ rows.T + bias`` from the codes."""
    rows = stored.rows
    return helper.make_node(
        "MatMulNBits",
        [x, stored.codes, stored.scales] + (["", "", bias] if bias else []),
        [y],
        domain=CONTRIB,
        bits=rows.bits,
        block_size=rows.block,
        N=len(rows.codes),
        K=rows.width,
        # 4: quantize x to int8 a block too, and multiply integers. With eight bits ONNX Runtime is several times
        # faster so, and with two bits some thirty times; four bits it restores as fast as it reads them, and x stays.
        accuracy_level=0 if rows.bits == 4 else 4,
    )


def _lookup(graph: onnx.GraphProto, gather: onnx.NodeProto, stored: StoredRows) -> list[onnx.NodeProto]:
    """Nodes that give ``(batch, length, width)`` float32 rows by the indices of ``gather``."""
    codes, scales, rows = stored
    count, blocks, _ = rows.codes.shape
    shape = store(graph, f"{codes}.scales_shape", np.array([count, blocks, 1]))
    joined = store(graph, f"{codes}.rows_shape", np.array([0, 0, blocks * rows.block]))
    column, found, padded, output = f"{scales}.column", f"{codes}.found", f"{codes}.padded", gather.output[0]
    is_padded = blocks * rows.block > rows.width
    lookup = helper.make_node(
        "GatherBlockQuantized",
        [codes, gather.input[1], column],
        [found],
        domain=CONTRIB,
        bits=rows.bits,
        block_size=rows.block,
        gather_axis=0,
        quantize_axis=2,
    )
    nodes = [
        helper.make_node("Reshape", [scales, shape], [column]),
        lookup,
        helper.make_node("Reshape", [found, joined], [padded if is_padded else output]),
    ]
    if is_padded:
        bounds = {"start": 0, "end": rows.width, "axis": 2}
        ends = [store(graph, f"{codes}.{part}", np.array([at])) for part, at in bounds.items()]
        nodes.append(helper.make_node("Slice", [padded, *ends], [output]))
    return nodes
