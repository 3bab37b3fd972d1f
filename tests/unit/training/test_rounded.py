import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from torch.nn.functional import cross_entropy

from components.compression.export import export_onnx
from components.compression.quantization import quantized
from components.compression.rounding import Rounding, stored_weights
from components.compression.rowwise import quantized_rows
from components.compression.running import outputs_of
from components.compression.variants import reference_scores
from components.networks.contract import PredictionNetwork
from components.settings.network import CausalTransformerSettings, PerceptronSettings
from components.settings.quantization import QuantizationAwareSettings, QuantizationSettings, RoundedForm
from components.settings.training import OptimizationSettings, TrainerSettings
from components.tasks.batch import ITEM_FEATURES
from components.tasks.next_item import NextItem
from components.training.fitting import fit, initial_network
from tests.unit.compression.shaken import feed, inputs_of, item_features, shaken_network
from tests.unit.training.test_fitting import same_weights, validation_ndcg

OPTIMIZATION = OptimizationSettings(max_epochs=3, patience=3, batch_size=4, learning_rate=0.02)


def rounding(form: RoundedForm) -> Rounding:
    return Rounding(QuantizationAwareSettings(form=form, table_block=16))


def rounded_copy(network: PredictionNetwork, form: RoundedForm) -> PredictionNetwork:
    copied = copy.deepcopy(network).eval()
    copied.load_state_dict(rounding(form)(copied, True), strict=False)
    return copied


def training_loss(task: NextItem, network: PredictionNetwork) -> float:
    """Nats a point."""
    batches = list(task.scoring_batches(0, task.points, 32))
    with torch.inference_mode():
        return float(
            torch.cat([cross_entropy(network(*b.inputs), b.targets, reduction="none") for b in batches]).mean()
        )


class Watched(Rounding):
    """Notes on which weights it was asked."""

    def __init__(self) -> None:
        super().__init__(QuantizationAwareSettings(form="int4_table2", table_block=16))
        self.asked: list[tuple[torch.Tensor, bool]] = []

    def __call__(self, network: PredictionNetwork, anew: bool) -> dict[str, torch.Tensor]:
        assert network.head is not None
        self.asked.append((network.head.detach().clone(), anew))
        return super().__call__(network, anew)


def perceptron() -> PredictionNetwork:
    """A network whose served form multiplies nothing out."""
    sizes = {"mean": [0.0] * 24, "scale": [1.0] * 24}
    return initial_network(PerceptronSettings(kind="perceptron", hidden=(32, 32)), 3, 0, sizes).eval()


def test_four_bit_linear_layers_are_rounded_as_the_form_stores_them() -> None:
    network = perceptron()
    feeds = [{"values": np.random.default_rng(0).normal(size=(64, 24)).astype(np.float32)}]
    served = outputs_of(
        quantized(export_onnx(network), "int4_table4", QuantizationSettings(table_block=16, rounding="nearest"), feeds),
        feeds,
    )
    plain, trained_with = (
        reference_scores(each, feeds, lambda feed: (torch.from_numpy(feed["values"]),))
        for each in (network, rounded_copy(network, "int4_table4"))
    )
    assert abs(trained_with - served).mean() < 0.001 * abs(plain - served).mean()


def test_eight_bit_linear_layers_are_rounded_as_the_form_stores_them() -> None:
    """By the weights: ONNX Runtime rounds what goes into a layer too."""
    network = perceptron()
    graph = quantized(
        export_onnx(network), "int8_table4", QuantizationSettings(table_block=16, rounding="nearest"), []
    ).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    codes = [name for name, values in stored.items() if values.dtype == np.int8 and values.ndim == 2]
    assert len(codes) == 3
    restored = [stored[name] * stored[name.removesuffix("_quantized") + "_scale"] for name in codes]
    rounded = rounding("int8_table4")(network, True)
    for values in rounded.values():
        near = [np.abs(one.T - values.numpy()).max() for one in restored if one.T.shape == tuple(values.shape)]
        assert min(near) < 1e-6


@pytest.mark.parametrize("form", ["int8_table4", "int4_table2"])
def test_tables_are_rounded_as_the_form_stores_them(
    task: NextItem, shape: CausalTransformerSettings, form: RoundedForm
) -> None:
    network = initial_network(shape, task.outcomes, 0).eval()
    feeds = task.calibration(32, 0)
    served = outputs_of(
        quantized(export_onnx(network), form, QuantizationSettings(table_block=16, rounding="nearest"), feeds),
        feeds,
    )
    plain, trained_with = (
        reference_scores(each, feeds, task.inputs_of) for each in (network, rounded_copy(network, form))
    )
    assert abs(trained_with - served).mean() < 0.5 * abs(plain - served).mean()


@pytest.mark.parametrize("form", ["int4_table4", "int4_table2", "int4_product"])
def test_attention_that_is_stored_as_products_is_not_rounded_by_its_factors(form: RoundedForm) -> None:
    """The errors of the factors would be others than those of what is served."""
    network = shaken_network(dim=32, heads=2)
    feeds = [feed(64, 12)]
    settings = QuantizationSettings(table_block=16, rounding="nearest")
    served = outputs_of(quantized(export_onnx(network), form, settings, feeds), feeds)
    products = {f"blocks.1.attention.{part}.weight" for part in "qkvo"}
    assert network.multiplied_out == products
    rounded = rounding(form)(network, True)
    assert not products & rounded.keys()
    weights = network.state_dict()
    factors = {name: torch.from_numpy(quantized_rows(weights[name].numpy(), 4, 16).restored()) for name in products}
    far, near = copy.deepcopy(network), copy.deepcopy(network)
    far.load_state_dict({**rounded, **factors}, strict=False)
    near.load_state_dict(rounded, strict=False)
    plain, by_factors, trained_with = (
        abs(reference_scores(each, feeds, inputs_of) - served).mean() for each in (network, far, near)
    )
    assert trained_with < 0.7 * by_factors and trained_with < 0.5 * plain


def test_attention_of_many_narrow_heads_is_rounded() -> None:
    network = shaken_network(heads=8)
    assert not network.multiplied_out
    assert {f"blocks.1.attention.{part}.weight" for part in "qkvo"} <= rounding("int4_table4")(network, True).keys()


def test_tables_heads_and_linear_layers_are_rounded_and_positions_are_not(
    task: NextItem, shape: CausalTransformerSettings
) -> None:
    for tied in (True, False):
        network = initial_network(shape.model_copy(update={"tied": tied}), task.outcomes, 0)
        kinds = {stored.name: stored.kind for stored in stored_weights(network)}
        tables = {"item.weight"} if tied else {"item.weight", "output.weight"}
        assert {name for name, kind in kinds.items() if kind == "table"} == tables
        assert kinds["blocks.0.ffn_in.weight"] == "linear" and "position.weight" not in kinds


@pytest.mark.parametrize("form", ["int8_table4", "int4_table2", "int4_product"])
def test_items_with_features_are_rounded_as_the_one_table_that_is_stored(
    task: NextItem, shape: CausalTransformerSettings, form: RoundedForm
) -> None:
    network = initial_network(shape, task.outcomes, 0, {ITEM_FEATURES: item_features(task.outcomes)}).eval()
    expected = rounded_copy(network.folded(), form)
    assert not torch.equal(expected.head, network.head)
    torch.testing.assert_close(rounded_copy(network, form).head, expected.head, rtol=0, atol=1e-7)
    assert rounding(form)(network, True).keys() == rounding(form)(network.folded(), True).keys()


def test_steps_compute_with_rounded_weights_and_move_the_full_ones(
    task: NextItem, shape: CausalTransformerSettings
) -> None:
    watched = Watched()
    network = initial_network(shape, task.outcomes, 0)
    start = copy.deepcopy(network)
    result = fit(network, task, OPTIMIZATION, TrainerSettings(), 0, rounding=watched)
    assert not same_weights(network, start)
    steps = [len(task.training_batches(4, seed=0, epoch=epoch)) for epoch in range(3)]
    assert len(watched.asked) == sum(steps) + 3, "a step each, and a validation each"
    assert sum(anew for _, anew in watched.asked) == 6
    heads = [head for head, _ in watched.asked]
    assert not any(torch.equal(one, other) for one, other in pairwise(heads))
    assert all(len(head[0].unique()) > 8 for head in heads), "it is never asked for what was rounded already"
    kept = rounded_copy(network, "int4_table2")
    assert not same_weights(network, kept), "what is kept is not rounded"
    assert validation_ndcg(task, kept) == pytest.approx(result.best, abs=1e-6), "what is validated is"


def test_a_network_gets_used_to_the_form(task: NextItem, shape: CausalTransformerSettings) -> None:
    start = initial_network(shape, task.outcomes, 0)
    fit(start, task, OPTIMIZATION.model_copy(update={"max_epochs": 5}), TrainerSettings(), 0)
    losses = []
    for aware in (None, rounding("int4_table2")):
        network = copy.deepcopy(start)
        gentle = OPTIMIZATION.model_copy(update={"learning_rate": 0.005})
        fit(network, task, gentle, TrainerSettings(), 0, rounding=aware)
        losses.append(training_loss(task, rounded_copy(network, "int4_table2")))
    assert losses[1] < losses[0] - 0.02


def test_an_interrupted_training_goes_on_the_same(
    task: NextItem, shape: CausalTransformerSettings, tmp_path: Any
) -> None:
    def stop(_: str, epoch: Any) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    whole, parted = (initial_network(shape, task.outcomes, 0) for _ in range(2))
    fit(whole, task, OPTIMIZATION, TrainerSettings(), 0, rounding=rounding("int4_table2"))
    with pytest.raises(KeyboardInterrupt):
        fit(
            parted,
            task,
            OPTIMIZATION,
            TrainerSettings(),
            0,
            rounding=rounding("int4_table2"),
            scratch=tmp_path,
            watch=stop,
        )
    fit(parted, task, OPTIMIZATION, TrainerSettings(), 0, rounding=rounding("int4_table2"), scratch=tmp_path)
    assert same_weights(whole, parted)
