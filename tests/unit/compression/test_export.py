from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from components.compression.export import export_onnx, model_bytes, with_metadata
from components.compression.groups import prunable_groups
from components.compression.running import outputs_of
from components.compression.surgery import cut, units_to_keep
from components.compression.variants import check_parity, reference_scores
from components.errors import CompressionError
from components.networks.building import network_of
from components.networks.contract import PredictionNetwork
from components.networks.ensemble import Ensemble
from tests.unit.compression.shaken import (
    ITEMS,
    LENGTH,
    SHAPES,
    counts_of,
    exported_model,
    feed,
    inputs_of,
    shaken_network,
)


@pytest.fixture(scope="module", params=SHAPES)
def exported(request: pytest.FixtureRequest) -> tuple[PredictionNetwork, onnx.ModelProto]:
    return shaken_network(**SHAPES[request.param]), exported_model(**SHAPES[request.param])


def test_scores_are_those_of_the_network_for_every_padding_and_batch(
    exported: tuple[PredictionNetwork, onnx.ModelProto],
) -> None:
    network, model = exported
    for batch in (1, 2, 64):
        for width in (1, 5, LENGTH):
            for length in (width, width // 2, 0, None):
                given = [feed(batch, width, length)]
                scores, expected = outputs_of(model, given), reference_scores(network, given, inputs_of)
                assert scores.shape == (batch, ITEMS)
                np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("heads", [2, 4])
def test_a_pruned_network_is_served_in_its_own_widths(heads: int) -> None:
    network = shaken_network(dim=32, heads=heads)
    groups = prunable_groups(network)
    scores = {group.name: torch.rand(group.units) for group in groups}
    counts = counts_of(groups, {"ffn": 0.6, "heads": 0.5, "head_width": 0.5, "width": 0.25})
    smaller = cut(network, groups, units_to_keep(groups, scores, counts))
    given = [feed(3, LENGTH)]
    np.testing.assert_allclose(
        outputs_of(export_onnx(smaller), given), reference_scores(smaller, given, inputs_of), rtol=0, atol=1e-5
    )


def test_the_factor_on_embedded_rows_is_kept(exported: tuple[PredictionNetwork, onnx.ModelProto]) -> None:
    network, _ = exported
    scaled = network_of({**network.record(), "embedding_scale": 4.0}).eval()
    scaled.load_state_dict(network.state_dict())
    given = feed(4, 6)
    served = scaled.for_serving()(*(torch.from_numpy(each) for each in given.values()))
    expected = reference_scores(scaled, [given], inputs_of)
    np.testing.assert_allclose(served, expected, rtol=0, atol=1e-5)
    assert np.abs(expected - reference_scores(network, [given], inputs_of)).max() > 0.01


def test_what_stands_in_the_padding_does_not_matter(exported: tuple[PredictionNetwork, onnx.ModelProto]) -> None:
    one, other = feed(8, 10, 4), feed(8, 10, 4, seed=1)
    other["items"][:, :4] = one["items"][:, :4]
    assert np.array_equal(outputs_of(exported[1], [one]), outputs_of(exported[1], [other]))


def test_every_matrix_is_stored_once(exported: tuple[PredictionNetwork, onnx.ModelProto]) -> None:
    network, model = exported
    tables = [tensor.name for tensor in model.graph.initializer if list(tensor.dims) in ([ITEMS, 16], [16, ITEMS])]
    assert tables == (["item"] if network.record()["tied"] else ["item", "output"])
    assert model.opset_import[0].version == 23


def test_what_features_add_is_in_the_one_table_and_makes_the_file_no_larger() -> None:
    plain, described = exported_model(blocks=1), exported_model(blocks=1, described=True)
    given = [feed(8, LENGTH)]
    expected = reference_scores(shaken_network(blocks=1, described=True), given, inputs_of)
    np.testing.assert_allclose(outputs_of(described, given), expected, rtol=0, atol=1e-5)
    assert len(model_bytes(described)) == len(model_bytes(plain))
    assert [node.op_type for node in described.graph.node] == [node.op_type for node in plain.graph.node]


def test_the_same_weights_give_the_same_bytes_that_tell_nothing_of_the_machine() -> None:
    first, second = (model_bytes(export_onnx(shaken_network(blocks=1))) for _ in range(2))
    assert first == second != model_bytes(export_onnx(shaken_network(blocks=1, seed=1)))
    for trace in (str(Path.cwd()), "torch", "forward", "stack_trace"):
        assert trace.encode() not in first


def test_metadata_are_added_in_order_and_the_graph_stays(tmp_path: Path) -> None:
    model = exported_model(blocks=1)
    path = tmp_path / "model.onnx"
    path.write_bytes(model_bytes(model))
    path.write_bytes(with_metadata(path, {"teacher": "abc", "commit": "123"}))
    again = with_metadata(path, {"commit": "456"})
    read = onnx.ModelProto.FromString(again)
    assert [(entry.key, entry.value) for entry in read.metadata_props] == [("commit", "456"), ("teacher", "abc")]
    assert read.graph.SerializeToString(deterministic=True) == model.graph.SerializeToString(deterministic=True)


def test_a_network_without_a_served_form_is_refused() -> None:
    with pytest.raises(CompressionError, match="Ensemble has no served form"):
        export_onnx(Ensemble([shaken_network(), shaken_network(seed=1)]))


@pytest.mark.parametrize("wrong", [1e-3, np.nan])
def test_a_graph_that_is_another_function_is_refused(wrong: float) -> None:
    expected = np.zeros((2, 3))
    scores = expected.copy()
    check_parity(scores, expected)
    scores[1, 1] = wrong
    with pytest.raises(CompressionError, match="the exported graph is not the network"):
        check_parity(scores, expected)
