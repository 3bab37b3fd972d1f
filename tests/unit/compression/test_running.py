import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from components.compression.export import export_onnx
from components.compression.graph import linear_nodes
from components.compression.running import first_feeds, input_moments, outputs_of
from components.settings.network import PerceptronSettings
from components.training.fitting import initial_network
from tests.unit.compression.shaken import LENGTH, exported_model, factorization, feed


def test_moments_are_of_what_each_linear_layer_is_given() -> None:
    random = np.random.default_rng(0)
    sizes = {"mean": [0.0] * 6, "scale": [1.0] * 6}
    network = initial_network(PerceptronSettings(kind="perceptron", hidden=(8, 5)), 3, 0, sizes).eval()
    given = [random.normal(size=(count, 6)).astype(np.float32) for count in (7, 3)]
    seen: dict[tuple[int, ...], np.ndarray] = {}
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.register_forward_hook(
                lambda layer, inputs, _: seen.update({tuple(layer.weight.shape): inputs[0].numpy()})
            )
    found = input_moments(export_onnx(network), [{"values": values} for values in given])
    with torch.inference_mode():
        network(torch.from_numpy(np.concatenate(given)))
    plain = sorted((rows.T @ rows for rows in seen.values()), key=len)
    assert [moment.shape for moment in plain] == [(5, 5), (6, 6), (8, 8)]
    for mine, theirs in zip(sorted(found.values(), key=len), plain, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_network_without_linear_layers_has_no_inputs() -> None:
    assert input_moments(export_onnx(factorization()), [feed(4, LENGTH)]) == {}


def test_what_a_request_holds_may_be_an_input() -> None:
    weights = helper.make_tensor("weights", TensorProto.FLOAT, [3, 2], np.ones(6, np.float32))
    given, scores = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, width])
        for name, width in (("x", 3), ("scores", 2))
    )
    node = helper.make_node("MatMul", ["x", "weights"], ["scores"])
    model = helper.make_model(
        helper.make_graph([node], "one", [given], [scores], [weights]), opset_imports=[helper.make_opsetid("", 20)]
    )
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_allclose(input_moments(model, [{"x": x}])["weights"], x.T @ x)


def test_padding_is_no_input() -> None:
    model = exported_model()
    before = model.SerializeToString()
    padded = feed(6, LENGTH, seed=3)
    single = [
        {"items": padded["items"][row : row + 1, :length], "length": padded["length"][row : row + 1]}
        for row, length in enumerate(padded["length"])
    ]
    together, alone = input_moments(model, [padded]), input_moments(model, single)
    assert set(together) == {node.input[1] for node in linear_nodes(model.graph)}
    for name, moment in together.items():
        np.testing.assert_allclose(moment, alone[name], rtol=1e-5, atol=1e-6)
    assert model.SerializeToString() == before


@pytest.mark.parametrize(("requests", "feeds"), [(1, 1), (4, 1), (8, 2), (11, 2), (12, 3), (99, 3)])
def test_the_first_feeds_hold_as_many_requests_as_are_asked_for(requests: int, feeds: int) -> None:
    assert len(first_feeds([feed(4, LENGTH, seed=seed) for seed in range(3)], requests)) == feeds


def test_the_output_is_that_of_all_feeds_in_their_order() -> None:
    model: onnx.ModelProto = exported_model()
    feeds = [feed(2, LENGTH, seed=0), feed(3, LENGTH, seed=1)]
    parts = [outputs_of(model, [one]) for one in feeds]
    np.testing.assert_array_equal(outputs_of(model, feeds), np.concatenate(parts))
