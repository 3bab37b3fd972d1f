"""Small passes over ONNX graphs: find, replace, strip."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper

Graph = onnx.GraphProto
Node = onnx.NodeProto


def initializer(graph: Graph, name: str) -> onnx.TensorProto | None:
    """The stored tensor of this name, or None."""
    return next((tensor for tensor in graph.initializer if tensor.name == name), None)


def array(graph: Graph, name: str) -> np.ndarray:
    """The values of a stored tensor.

    Raises:
        KeyError: There is none of this name.
    """
    tensor = initializer(graph, name)
    if tensor is None:
        raise KeyError(name)
    return numpy_helper.to_array(tensor)


def store(graph: Graph, name: str, values: np.ndarray) -> str:
    """Store a tensor, in the place of one of the same name; gives its name."""
    old = initializer(graph, name)
    if old is not None:
        graph.initializer.remove(old)
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    return name


def replace_node(graph: Graph, old: Node, new: Iterable[Node]) -> None:
    """Put nodes in the place of one."""
    nodes = list(graph.node)
    at = nodes.index(old)
    del graph.node[:]
    graph.node.extend([*nodes[:at], *new, *nodes[at + 1 :]])


def readers(graph: Graph, value: str) -> list[Node]:
    """The nodes that read a value."""
    return [node for node in graph.node if value in node.input]


def drop(graph: Graph, name: str) -> None:
    """Remove a stored tensor."""
    graph.initializer.remove(initializer(graph, name))


def prepend(graph: Graph, new: Iterable[Node]) -> None:
    """Put nodes before all others."""
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*new, *nodes])


def linear_nodes(graph: Graph) -> list[Node]:
    """The MatMul nodes of linear layers: those whose second input is a stored matrix ``(in, out)``."""
    stored = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    return [node for node in graph.node if node.op_type == "MatMul" and node.input[1] in stored]


def convolution_nodes(graph: Graph) -> list[Node]:
    """The Conv nodes whose weights are stored."""
    stored = {tensor.name for tensor in graph.initializer}
    return [node for node in graph.node if node.op_type == "Conv" and node.input[1] in stored]


def rectified(graph: Graph, nodes: Iterable[Node]) -> list[Node]:
    """The Relu and MaxPool nodes that follow these, one after the other."""
    reached = {name for node in nodes for name in node.output}
    found = []
    for node in graph.node:  # each comes after what it reads
        if node.op_type in ("Relu", "MaxPool") and node.input[0] in reached:
            found.append(node)
            reached.update(node.output)
    return found


def lookup_tables(graph: Graph) -> list[str]:
    """The stored matrices of which rows are looked up by what a request says, in the order of the graph."""
    stored = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    constant = {tensor.name for tensor in graph.initializer}
    axes = {node.name: next((a.i for a in node.attribute if a.name == "axis"), 0) for node in graph.node}
    found = [
        node.input[0]
        for node in graph.node
        if node.op_type == "Gather"
        and node.input[0] in stored
        and node.input[1] not in constant
        and axes[node.name] == 0
    ]
    return list(dict.fromkeys(found))


def heads_as_matmul(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write each ``Gemm(h, table, transB=1)`` as ``MatMul(h, Transpose(table))``, in place.

    The table stays stored once, as rows, and quantizers of MatMul, which would store a Gemm's operand a second time,
    pass it by. Runtimes fold the transpose when they load the model.
    """
    for node in [node for node in model.graph.node if node.op_type == "Gemm"]:
        table = node.input[1]
        columns = f"{table}.columns"
        new = [helper.make_node("Transpose", [table], [columns], perm=[1, 0])]
        new.append(helper.make_node("MatMul", [node.input[0], columns], list(node.output)))
        replace_node(model.graph, node, new)
    return model


def tidied(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model with only what is computed: no traces, intermediate shapes or long names.

    Stored tensors keep their names and are sorted by them; values between nodes are numbered.
    """
    source = model.graph
    used = {name for node in source.node for name in node.input}
    kept = {value.name for value in [*source.input, *source.output]} | {tensor.name for tensor in source.initializer}
    short: dict[str, str] = {"": ""} | {name: name for name in kept}
    nodes = []
    for number, node in enumerate(source.node):
        names = [[short.setdefault(name, f"v{len(short)}") for name in side] for side in (node.input, node.output)]
        bare = Node(op_type=node.op_type, domain=node.domain, input=names[0], output=names[1], name=f"n{number}")
        bare.attribute.extend(sorted(node.attribute, key=lambda attribute: str(attribute.name)))
        nodes.append(bare)
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        attribute.ClearField("doc_string")
    tensors = []
    for tensor in sorted(source.initializer, key=lambda tensor: str(tensor.name)):
        if tensor.name in used:
            tensors.append(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    inputs, outputs = (
        [helper.make_value_info(value.name, value.type) for value in side] for side in (source.input, source.output)
    )
    domains = {node.domain for node in nodes} | {""}
    imports = [imported for imported in model.opset_import if imported.domain in domains]
    return helper.make_model(
        helper.make_graph(nodes, "recommender", inputs, outputs, tensors),
        opset_imports=sorted(imports, key=lambda imported: str(imported.domain)),
        ir_version=model.ir_version,
    )
