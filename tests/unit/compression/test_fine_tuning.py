from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from scipy.special import log_softmax

from components.compression.export import export_onnx, model_bytes
from components.compression.fine_tuning import FineTunedGraphs, fine_tuned
from components.compression.quantization import quantized
from components.compression.rounding import rounded_as_trained, write_rounding
from components.compression.running import outputs_of
from components.compression.tables import rounded_tables
from components.compression.variants import write_variants
from components.data.dataset import PreparedDataset
from components.networks.contract import PredictionNetwork
from components.settings.quantization import FineTuningSettings, QuantizationAwareSettings, QuantizationSettings
from components.tasks.building import task_of
from components.tasks.contract import Task
from tests.unit.compression.shaken import shaken_network
from tests.unit.training.test_fitting import same_weights

SETTINGS = FineTuningSettings(steps=30, batch_size=8, learning_rate=3e-3)
QUANTIZATION = QuantizationSettings(table_block=16)


@pytest.fixture
def task(prepared: PreparedDataset) -> Task:
    return task_of("next_item", prepared, 8)


def network_of(task: Task, **changes: object) -> PredictionNetwork:
    return shaken_network(task.outcomes, **{"max_length": 8, "dim": 32, **changes})


def rounded(network: PredictionNetwork, bits: int) -> dict[str, np.ndarray]:
    tables = rounded_tables(export_onnx(network), bits, 16)
    return {name: rows.restored() for name, rows in tables.items()}


def divergence(network: PredictionNetwork, other: PredictionNetwork, task: Task) -> float:
    """Nats a training point."""
    with torch.inference_mode():
        (batch,) = task.scoring_batches(0, task.points, 4096)
        expected, found = (log_softmax(one(*batch.inputs).numpy(), axis=1) for one in (network, other))
    return float((np.exp(expected) * (expected - found)).sum(axis=1).mean())


def stored(model: onnx.ModelProto, part: str) -> np.ndarray:
    return next(numpy_helper.to_array(each) for each in model.graph.initializer if each.name == part)


@pytest.mark.parametrize("tied", [True, False])
def test_all_but_the_table_comes_nearer_to_what_the_network_says(task: Task, tied: bool) -> None:
    network = network_of(task, tied=tied)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    tables = {f"{name}.weight": values for name, values in rounded(network, 2).items()}
    only_rounded = fine_tuned(network, tables, task, SETTINGS.model_copy(update={"steps": 1, "learning_rate": 1e-12}))
    fitted, again = (fine_tuned(network, tables, task, SETTINGS) for _ in range(2))
    assert len(tables) == (1 if tied else 2)
    for name, values in tables.items():
        assert np.array_equal(fitted.state_dict()[name].numpy(), values)
    assert divergence(network, fitted, task) < 0.7 * divergence(network, only_rounded, task)
    assert same_weights(fitted, again)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(weight.requires_grad for weight in network.parameters())


def test_a_form_keeps_its_codes_and_comes_nearer(task: Task) -> None:
    network = network_of(task)
    model, calibration = export_onnx(network), task.calibration(64, seed=0)
    fine_tune = FineTunedGraphs(network, model, task, SETTINGS)
    plain, fitted = (quantized(model, "int4_table2", QUANTIZATION, calibration, made) for made in (None, fine_tune))
    assert len(model_bytes(plain)) == len(model_bytes(fitted))
    assert np.array_equal(stored(plain, "item.codes"), stored(fitted, "item.codes"))
    expected = log_softmax(outputs_of(model, calibration), axis=1)
    errors = [
        (np.exp(expected) * (expected - log_softmax(outputs_of(each, calibration), axis=1))).sum()
        for each in (plain, fitted)
    ]
    assert errors[1] < 0.8 * errors[0]


def test_the_same_tables_are_fitted_once_and_others_anew(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    network, asked = network_of(task), []
    model = export_onnx(network)

    def counted(*given: object) -> PredictionNetwork:
        asked.append(given)
        return network

    monkeypatch.setattr("components.compression.fine_tuning.fine_tuned", counted)
    fine_tune = FineTunedGraphs(network, model, task, SETTINGS)
    four, two = rounded(network, 4), rounded(network, 2)
    moved = {"item": four["item"] * np.float32(1.01)}  # Of as many bits: another form may have chosen other codes.
    for tables in (four, two, four, moved, moved):
        assert fine_tune(tables) is not None
    assert len(asked) == 3
    quantized(model, "int8_table8", QUANTIZATION, task.calibration(16, seed=0), fine_tune)
    assert len(asked) == 3


def test_what_does_not_help_is_not_taken(task: Task, capfd: pytest.CaptureFixture[str]) -> None:
    network, other = network_of(task), network_of(task, seed=1)
    model, calibration, given = export_onnx(network), task.calibration(64, seed=0), []

    def worse(tables: Mapping[str, np.ndarray]) -> onnx.ModelProto:
        given.append(tables)
        return export_onnx(other)

    found = [quantized(model, "int8_table4", QUANTIZATION, calibration, made) for made in (None, worse)]
    assert len(given) == 1
    assert model_bytes(found[0]) == model_bytes(found[1])
    assert "fine-tuned to the table of 4 bits: " in (told := capfd.readouterr().out) and "not taken" in told


def test_the_settings_ask_for_it(task: Task, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network, settings = network_of(task), QUANTIZATION.model_copy(update={"fine_tuning": SETTINGS})
    contents = []
    for given in (QUANTIZATION, settings):
        [(variant, _)] = write_variants(
            tmp_path,
            network,
            ["int4_table2"],
            given,
            task.calibration(64, seed=0),
            task=task,
            made_from="student",
            from_digest="d",
        )
        contents.append((tmp_path / variant.file).read_bytes())
    assert len(contents[0]) == len(contents[1]) and contents[0] != contents[1]
    assert "fine-tuned to the table of 2 bits: " in capfd.readouterr().out
    write_rounding(tmp_path, QuantizationAwareSettings(form="int4_table2", table_block=16))
    assert rounded_as_trained(settings, tmp_path).fine_tuning is None


def test_weights_that_are_no_numbers_are_not_taken(task: Task) -> None:
    network = network_of(task)
    endless = SETTINGS.model_copy(update={"learning_rate": 1e30, "steps": 3})
    assert FineTunedGraphs(network, export_onnx(network), task, endless)(rounded(network, 4)) is None


def test_of_many_outcomes_some_points_a_step_are_enough(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(task)
    monkeypatch.setattr("components.compression.fine_tuning._SCORES_A_STEP", 0)
    tables = {f"{name}.weight": values for name, values in rounded(network, 2).items()}
    fitted = fine_tuned(network, tables, task, SETTINGS)
    only_rounded = fine_tuned(network, tables, task, SETTINGS.model_copy(update={"steps": 1, "learning_rate": 1e-12}))
    assert divergence(network, fitted, task) < divergence(network, only_rounded, task)
    assert not same_weights(fitted, only_rounded)


def test_what_features_add_is_in_the_rounded_table(prepared: PreparedDataset, task: Task) -> None:
    network = shaken_network(prepared.items, max_length=8, dim=32, described=True)
    model = export_onnx(network)
    made = FineTunedGraphs(network, model, task, SETTINGS)(rounded(network, 4))
    assert made is not None
    np.testing.assert_array_equal(stored(made, "item"), rounded(network, 4)["item"])


def test_nothing_is_fitted_where_all_weights_are_rounded(task: Task) -> None:
    network = network_of(task)
    tables = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    assert same_weights(fine_tuned(network, tables, task, SETTINGS), network)


def test_other_tables_and_other_losses_are_left_alone(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(task)
    model, tables = export_onnx(network), rounded(network, 4)
    fine_tune = FineTunedGraphs(network, model, task, SETTINGS)
    assert fine_tune({}) is None
    assert FineTunedGraphs(network_of(task, seed=1), model, task, SETTINGS)(tables) is None
    monkeypatch.setattr(type(task), "loss", "bernoulli")
    assert fine_tune(tables) is None
