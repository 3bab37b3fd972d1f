"""An exported graph in two: what makes a vector of a history, and the items' vectors that it is multiplied with."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from components.compression.export import OUTPUT
from components.compression.graph import array, initializer, replace_node, store, tidied
from components.errors import CompressionError

VECTOR = "vector"


def split_at_head(model: onnx.ModelProto) -> tuple[onnx.ModelProto, np.ndarray]:
    """The encoder, with one output ``vector`` ``(batch, dim)`` float32, and the items' vectors ``(K, dim)`` float32.

    ``scores == vector @ vectors.T``. Where the graph adds a bias an item, the vectors have one dimension more, which
    holds it, and the encoder gives a 1 there.

    Args:
        model: From :func:`export_onnx`; it stays as it is.

    Raises:
        CompressionError: Its scores are no such products.
    """
    encoder = onnx.ModelProto()
    encoder.CopyFrom(model)
    graph = encoder.graph
    last = _source(graph, OUTPUT)
    product, bias = last, None
    if last.op_type == "Add":
        stored = [name for name in last.input if initializer(graph, name) is not None]
        others = [name for name in last.input if name not in stored]
        if len(stored) == 1 and len(others) == 1 and array(graph, stored[0]).ndim == 1:
            product, bias = _source(graph, others[0]), array(graph, stored[0])
    vectors = _vectors(graph, product)
    hidden = product.input[0]
    if bias is None:
        end = helper.make_node("Identity", [hidden], [VECTOR])
    else:
        vectors = np.column_stack([vectors, bias])
        pads = store(graph, f"{VECTOR}.pads", np.array([0, 0, 0, 1]))
        one = store(graph, f"{VECTOR}.one", np.array(1, np.float32))
        end = helper.make_node("Pad", [hidden, pads, one], [VECTOR])
    replace_node(graph, last, [end])
    if product is not last:
        replace_node(graph, product, [])
    batch = graph.output[0].type.tensor_type.shape.dim[0].dim_param or "batch"
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(VECTOR, TensorProto.FLOAT, [batch, vectors.shape[1]]))
    _drop_unread(graph)
    return tidied(encoder), np.ascontiguousarray(vectors, dtype=np.float32)


def _vectors(graph: onnx.GraphProto, product: onnx.NodeProto) -> np.ndarray:
    """The ``(K, dim)`` that a node multiplies with."""
    if product.op_type == "MatMul":
        factor = product.input[1]
        if initializer(graph, factor) is not None:
            return array(graph, factor).T
        turned = _source(graph, factor)
        if turned.op_type == "Transpose" and initializer(graph, turned.input[0]) is not None:
            return array(graph, turned.input[0])
    raise CompressionError(
        "the network's scores are no products of a user's vector with the items' vectors: they cannot be searched for",
        "Take int8_index out of quantization.variants.",
    )


def _source(graph: onnx.GraphProto, value: str) -> onnx.NodeProto:
    """The node that gives a value; an empty one where it is an input."""
    return next((node for node in graph.node if value in node.output), onnx.NodeProto())


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Remove nodes whose values nobody reads, in place."""
    outputs = {value.name for value in graph.output}
    while True:
        read = {name for node in graph.node for name in node.input} | outputs
        unread = [node for node in graph.node if not read & set(node.output)]
        if not unread:
            return
        for node in unread:
            replace_node(graph, node, [])
