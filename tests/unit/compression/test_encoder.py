import numpy as np
import onnx
import pytest

from components.compression.encoder import split_at_head
from components.compression.export import OUTPUT, model_bytes
from components.compression.graph import array, store
from components.compression.running import outputs_of
from components.errors import CompressionError
from tests.unit.compression.shaken import ITEMS, exported_model, feed


def changed(*, table: bool = False, then: str = "", value: np.ndarray | None = None) -> onnx.ModelProto:
    """The exported model with a table of its own for the head, or with another operator at its end."""
    model = onnx.ModelProto()
    model.CopyFrom(exported_model())
    graph = model.graph
    if table:
        own = np.random.default_rng(0).standard_normal(array(graph, "item").shape).astype(np.float32)
        for node in graph.node:
            if node.op_type == "Transpose" and node.input[0] == "item":
                node.input[0] = store(graph, "output", own)
    if then:
        for node in graph.node:
            if OUTPUT in node.output:
                node.output[0] = "before"
        others = [] if value is None else [store(graph, "value", value)]
        graph.node.append(onnx.helper.make_node(then, ["before", *others], [OUTPUT]))
    return model


@pytest.mark.parametrize("table", [False, True], ids=["tied", "untied"])
def test_the_vector_times_those_of_the_items_are_the_scores(table: bool) -> None:
    model, given = changed(table=table), feed(5, 6)
    before = model_bytes(model)
    encoder, vectors = split_at_head(model)
    assert np.allclose(outputs_of(encoder, [given]) @ vectors.T, outputs_of(model, [given]), atol=1e-4)
    assert model_bytes(model) == before
    assert [tensor.name for tensor in encoder.graph.initializer if tensor.dims[:1] == [ITEMS]] == ["item"]


def test_a_bias_of_the_items_is_a_dimension_of_their_vectors() -> None:
    model, given = changed(then="Add", value=np.linspace(-3, 3, ITEMS, dtype=np.float32)), feed(5, 6)
    encoder, vectors = split_at_head(model)
    assert vectors.shape == (ITEMS, 17)
    assert np.allclose(outputs_of(encoder, [given]) @ vectors.T, outputs_of(model, [given]), atol=1e-4)


def test_scores_that_are_no_products_are_refused() -> None:
    with pytest.raises(CompressionError, match="no products"):
        split_at_head(changed(then="Relu"))
