import numpy as np
import onnx
import pytest
import torch

from components.compression import table_rounding
from components.compression.export import export_onnx, model_bytes
from components.compression.quantization import BITS, Feed, quantized
from components.compression.running import outputs_of
from components.compression.variants import reference_scores, top_overlap
from components.errors import CompressionError
from components.networks.contract import PredictionNetwork
from components.settings.quantization import GraphForm, QuantizationSettings, VariantName
from tests.unit.compression.shaken import LENGTH, exported_model, factorization, feed, inputs_of, shaken_network

ITEMS, ITEMS_OF_ONE = 400, 60
SETTINGS = QuantizationSettings()
SHAPES = {
    "tied": {},
    "untied": {"blocks": 1, "tied": False},
    "width that is no multiple of a block": {"dim": 40, "blocks": 1},
    "many narrow heads": {"heads": 8, "blocks": 1},
}
# Random weights have near ties everywhere; trained ones come out much closer.
LEAST_OVERLAP = {8: 0.9, 4: 0.65, 2: 0.45}


@pytest.fixture(scope="module")
def feeds() -> list[Feed]:
    return [feed(64, LENGTH, seed=seed, items=ITEMS) for seed in range(2)]


@pytest.fixture(scope="module", params=SHAPES)
def exported(request: pytest.FixtureRequest) -> tuple[PredictionNetwork, onnx.ModelProto]:
    shape = {"dim": 32, "ffn_dim": 64, **SHAPES[request.param]}
    return shaken_network(ITEMS, **shape), exported_model(ITEMS, **shape)


@pytest.mark.parametrize("variant", [variant for variant in BITS if variant != "fp32"])
def test_every_variant_ranks_like_the_network_and_is_smaller(
    exported: tuple[PredictionNetwork, onnx.ModelProto], feeds: list[Feed], variant: VariantName
) -> None:
    network, model = exported
    small = quantized(model, variant, SETTINGS, feeds)
    bits = min(8, BITS[variant].table, BITS[variant].weight)
    assert top_overlap(outputs_of(small, feeds), reference_scores(network, feeds, inputs_of)) > LEAST_OVERLAP[bits]
    assert len(model_bytes(small)) < len(model_bytes(model))


@pytest.mark.parametrize("variant", BITS)
def test_a_table_is_stored_once_and_never_expanded(feeds: list[Feed], variant: VariantName) -> None:
    graph = quantized(exported_model(ITEMS, blocks=1, dim=32), variant, SETTINGS, feeds).graph
    tables = [len(tensor.raw_data) for tensor in graph.initializer if tensor.dims and tensor.dims[0] == ITEMS]
    assert max(tables) == ITEMS * 32 * BITS[variant].table // 8
    assert sum(tables) <= max(tables) + ITEMS, "codes, and a byte a block"
    expanded = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0].startswith("item")]
    assert not expanded


def test_sizes_are_what_the_bits_say(feeds: list[Feed]) -> None:
    model = exported_model(1682, dim=64, heads=2, ffn_dim=256, max_length=50)
    size = {variant: len(model_bytes(quantized(model, variant, SETTINGS, feeds))) for variant in BITS}
    assert size["int8_table8"] < 0.29 * size["fp32"]
    assert size["int8_table4"] < 0.22 * size["fp32"]
    assert size["int4_table4"] < 0.16 * size["fp32"]


def test_a_one_block_student_fits_into_85_kilobytes(feeds: list[Feed]) -> None:
    model = exported_model(1682, dim=64, blocks=1, heads=2, ffn_dim=64, max_length=50)
    assert len(model_bytes(quantized(model, "int4_table4", SETTINGS, feeds))) < 85_000


@pytest.mark.parametrize("variant", BITS)
def test_padding_is_safe_after_quantization(feeds: list[Feed], variant: VariantName) -> None:
    model = quantized(exported_model(ITEMS, blocks=1, dim=32), variant, SETTINGS, feeds)
    for length in (LENGTH, LENGTH // 2, 1, 0):
        assert np.isfinite(outputs_of(model, [feed(2, LENGTH, length)])).all()
    empty, single = (outputs_of(model, [feed(2, LENGTH, length)]) for length in (0, 1))
    assert np.array_equal(empty, single)


def test_the_model_that_is_given_stays_and_the_same_inputs_give_the_same_bytes(feeds: list[Feed]) -> None:
    model = exported_model(ITEMS, blocks=1, dim=32)
    before = model_bytes(model)
    for variant in BITS:
        first, second = (model_bytes(quantized(model, variant, SETTINGS, feeds)) for _ in range(2))
        assert first == second
    assert model_bytes(model) == before


@pytest.mark.parametrize("form", ["int8_table4", "int4_table4", "int4_table2", "int4_product"])
def test_a_network_without_linear_layers_has_every_form(form: GraphForm) -> None:
    # One item of a user may solve for the user exactly: nothing is divided by zero then.
    network, feeds = factorization(), [feed(64, LENGTH, seed=0), feed(ITEMS_OF_ONE, 1, 1, items=ITEMS_OF_ONE)]
    made = quantized(export_onnx(network), form, SETTINGS, feeds)
    assert np.isfinite(outputs_of(made, feeds)).all()


@pytest.mark.parametrize(("divergences", "same"), [([1.0, 2.0], True), ([2.0, 1.0], False), ([np.inf, 1.0], False)])
def test_codes_that_are_chosen_for_answers_are_taken_where_those_are_nearer(
    exported: tuple[PredictionNetwork, onnx.ModelProto],
    feeds: list[Feed],
    monkeypatch: pytest.MonkeyPatch,
    divergences: list[float],
    same: bool,
) -> None:
    _, model = exported
    nearest = quantized(model, "int8_table4", SETTINGS.model_copy(update={"rounding": "nearest"}), feeds)
    told = iter(divergences)
    monkeypatch.setattr(table_rounding, "_divergence", lambda *_: next(told))
    assert (model_bytes(quantized(model, "int8_table4", SETTINGS, feeds)) == model_bytes(nearest)) == same


@pytest.mark.parametrize("form", ["int8_table4", "int4_table4", "int4_table2"])
def test_probabilities_change_less_when_codes_are_chosen_for_them(
    exported: tuple[PredictionNetwork, onnx.ModelProto], feeds: list[Feed], form: GraphForm
) -> None:
    network, model = exported
    gptq, nearest, unknown = (
        quantized(model, form, SETTINGS.model_copy(update={"rounding": rounding}), calibration)
        for rounding, calibration in (("gptq", feeds), ("nearest", feeds), ("gptq", []))
    )
    assert model_bytes(nearest) == model_bytes(unknown)
    assert len(model_bytes(nearest)) == len(model_bytes(gptq))
    likely, *others = (torch.from_numpy(outputs_of(each, feeds)).log_softmax(1) for each in (model, gptq, nearest))
    lost = [float((likely.exp() * (likely - other)).sum(1).mean()) for other in others]
    # Where rows are looked up as well, something may be lost by what is won; at worst the nearest codes are taken.
    assert lost[0] <= lost[1] if network.record()["tied"] else lost[0] < 0.95 * lost[1]


def test_scores_that_are_not_finite_are_refused() -> None:
    scores = np.zeros((1, 12))
    assert top_overlap(scores, scores) == 1.0
    scores[0, 3] = np.nan
    with pytest.raises(CompressionError, match="not finite"):
        top_overlap(scores, np.zeros((1, 12)))
