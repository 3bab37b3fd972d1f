"""Images with a label: the digits, by the real stages with tiny settings."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
import torch

from components.compression.groups import Kind, prunable_groups
from components.compression.surgery import check_mask_equivalence, cut, units_to_keep
from components.data.samples import content_digest, read_sample_dataset
from components.errors import DataError, SettingsError
from components.evaluation.scoring import network_scorer, onnx_scorer
from components.networks.building import network_of, new_network, read_network
from components.networks.convolution import Convolution, ConvolutionRecord
from components.settings.evaluation import EvaluationSettings
from components.settings.network import ConvolutionSettings, PerceptronSettings
from components.stages import ingest, prepare
from components.storage.atomic import read_json, write_json
from components.storage.checkpoints import checkpoint_digest
from components.storage.digests import file_digest
from components.tasks.batch import Scorer
from components.tasks.building import open_task
from components.tasks.predicting import Predicting
from tests.unit.compression.shaken import counts_of
from tests.unit.tasks.whole_runs import TRAINING, run

OPTIMIZATION = {"max_epochs": 2, "patience": 2, "batch_size": 32, "learning_rate": 0.01, "average_decay": 0.9}
SCENARIO: dict[str, Any] = {
    "task": "image",
    "seed": 0,
    "source": {"kind": "digits", "path": "x"},
    "prepare": {"kind": "samples", "test_share": 0.4, "validation_share": 0.1},
    "teacher": {
        "network": {"kind": "convolution", "channels": [16, 16], "hidden": [32], "dropout": 0.1},
        "optimization": {**OPTIMIZATION, "max_epochs": 3, "patience": 3},
    },
    "student": {"network": {"kind": "convolution", "channels": [8, 8]}, "optimization": OPTIMIZATION},
    "trainer": {"accelerator": "cpu"},
    "soft_labels": {"codec": "dense"},
    "distillation": {"lambda_hard": 0.2, "lambda_soft": 0.8, "temperature": 2.0},
    "pruning": {"channels_ratio": 0.5, "calibration_batches": 4, "optimization": {**OPTIMIZATION, "max_epochs": 1}},
    "quantization": {
        "variants": ["fp32", "int8_static", "int8_dynamic"],
        "calibration_histories": 64,
        "fine_tuning": {},
    },
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts of a checkout in which the stages up to quantization have run. Read only."""
    return run(tmp_path_factory.mktemp("image"), "tiny", SCENARIO, (ingest, prepare, *TRAINING))


def learned(artifacts: Path) -> dict[str, str]:
    """Digests of all that training, pruning and quantization have made."""
    networks = ("teacher/member-0", "baseline", "student", "pruned")
    graphs = {path.name: file_digest(path) for path in (artifacts / "quantized").glob("*.onnx")}
    return {name: checkpoint_digest(artifacts / name) for name in networks} | graphs


def images(folder: Path, split: str) -> set[str]:
    dataset = read_sample_dataset(folder)
    return {hashlib.sha256(dataset.values[row].tobytes()).hexdigest() for row in dataset.rows(split)}  # type: ignore


def test_no_stage_that_learns_has_seen_the_test(finished: Path, tmp_path: Path) -> None:
    """With other images and labels in the place of the test, every weight and every graph has the same digest."""
    test, others = images(finished / "dataset", "test"), images(finished / "dataset", "train")
    assert len(test) > 600 and not test & (others | images(finished / "dataset", "validation"))
    other = tmp_path / "artifacts" / "tiny" / "dataset"
    shutil.copytree(finished / "dataset", other)
    table = pl.read_parquet(other / "test.parquet")
    noise = np.random.default_rng(1).integers(0, 17, (len(table), 64)).astype(np.float32)
    table.with_columns(
        values=pl.Series(noise, dtype=pl.Array(pl.Float32, 64)), label=pl.col("label").reverse()
    ).write_parquet(other / "test.parquet")
    parts = [pl.read_parquet(other / f"{name}.parquet") for name in ("train", "validation", "test")]
    values = np.concatenate([part["values"].to_numpy() for part in parts])
    label = np.concatenate([part["label"].to_numpy() for part in parts])
    split = np.repeat([0, 1, 2], [len(part) for part in parts])
    record = read_json(other / "dataset.json")
    ids = pl.read_parquet(other / "items.parquet")["id"].to_list()
    digest = content_digest(values, label, split, ids)
    write_json(other / "dataset.json", {**record, "digest": digest})
    assert digest != record["digest"] and not images(other, "test") & test
    assert learned(run(tmp_path, "tiny", SCENARIO, TRAINING)) == learned(finished)


def test_the_quantized_student_tells_digits(finished: Path) -> None:
    task = open_task("image", finished / "dataset")

    def accuracy(scorer: Scorer) -> float:
        return task.judge(scorer, task.evaluation_batches("test", 256)).figures["accuracy"]

    teacher, pruned = (read_network(finished / name) for name in ("teacher/member-0", "pruned"))
    of_pruned = accuracy(network_scorer(pruned))
    assert accuracy(network_scorer(teacher)) > 0.8 and of_pruned > 0.6
    assert accuracy(onnx_scorer(finished / "quantized" / "pruned.int8_static.onnx")) > of_pruned - 0.03
    assert accuracy(task.baselines(EvaluationSettings())["commonest"].scorer) < 0.2


def test_answers_name_labels_and_images_of_another_size_are_refused(finished: Path, tmp_path: Path) -> None:
    task = open_task("image", finished / "dataset")
    told = Predicting(lambda name: (tmp_path / name).read_bytes(), task.write_package_files(tmp_path))
    answer = told.answer((), (), np.array([0.0] * 7 + [3.0, 0.0, 0.0], dtype=np.float32))
    assert answer.labels[0] == task.outcome_ids[7] == "7" and sum(answer.probabilities) == pytest.approx(1)
    request = task.golden_requests(1)[0]
    assert told.feed([told.parse(told.question(request))])["values"].shape == (1, 64)
    with pytest.raises(DataError, match="81 values, and the model reads 64"):
        told.parse(told.question({"values": [0.0] * 81}))


def test_convolutions_are_stored_in_eight_bits(finished: Path) -> None:
    for form in ("int8_static", "int8_dynamic"):
        graph = onnx.load(finished / "quantized" / f"pruned.{form}.onnx").graph
        weights = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) == 4}
        assert len(weights) == 2 and {tensor.data_type for tensor in weights.values()} == {onnx.TensorProto.INT8}
        assert sum(node.op_type in ("Conv", "ConvInteger") for node in graph.node) == 2
    between = [node.op_type for node in onnx.load(finished / "quantized" / "pruned.int8_static.onnx").graph.node]
    assert between.count("Conv") == 2 and "Relu" not in between, "what follows a convolution is one with it"
    kept = read_json(finished / "metrics" / "prune.json")
    assert kept["kept"] == {"convolutions.0": "4 of 8", "convolutions.1": "4 of 8"} and kept["mask_difference"] <= 1e-6
    assert read_network(finished / "pruned").record()["channels"] == [4, 4]


@pytest.mark.parametrize("kinds", [("channels",), ("ffn",), ("channels", "ffn")])
@pytest.mark.parametrize("hidden", [(), (24, 16)])
def test_the_smaller_network_is_the_masked_original(kinds: tuple[Kind, ...], hidden: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    record = ConvolutionRecord(
        outcomes=5,
        shape=(1, 9, 12),
        channels=(8, 12, 16),
        kernel=3,
        halved_after=(1, 3),
        hidden=hidden,
        dropout=0.3,
        mean=0.4,
        scale=2.0,
    )
    network = Convolution(record).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    groups = [group for group in prunable_groups(network) if group.kind in kinds]
    scores = {group.name: torch.rand(group.units) for group in groups}
    kept = units_to_keep(groups, scores, counts_of(groups, dict.fromkeys(kinds, 0.5)))
    smaller = cut(network, groups, kept)
    inputs = [(torch.randn(7, 9 * 12),)]
    assert check_mask_equivalence(network, smaller, groups, kept, inputs) <= 1e-6
    fewer = 3 * ("channels" in kinds) + len(hidden) * ("ffn" in kinds)
    assert len(groups) == fewer
    assert (sum(map(torch.numel, smaller.parameters())) < sum(map(torch.numel, network.parameters()))) == (fewer > 0)
    rebuilt = network_of(smaller.record())
    rebuilt.load_state_dict(smaller.state_dict())
    assert torch.equal(rebuilt.eval()(*inputs[0]), smaller(*inputs[0]))
    torch.testing.assert_close(network.for_serving()(*inputs[0]), network(*inputs[0]))


def test_a_network_fits_its_images_or_is_refused(finished: Path) -> None:
    sizes = open_task("image", finished / "dataset").sizes
    with pytest.raises(SettingsError, match="8 x 8 cannot be halved 4 times"):
        new_network(ConvolutionSettings(kind="convolution", channels=(4,) * 4, halved_after=(1, 2, 3, 4)), 10, sizes)
    with pytest.raises(SettingsError, match="a convolution is for tasks over images"):
        new_network(ConvolutionSettings(kind="convolution"), 10, {"mean": [0.0], "scale": [1.0]})
    assert new_network(PerceptronSettings(kind="perceptron"), 10, sizes)(torch.zeros(2, 64)).shape == (2, 10)
    with pytest.raises(ValueError, match=r"kernel .* odd"):
        ConvolutionSettings(kind="convolution", kernel=2)
    with pytest.raises(ValueError, match="each of the 2 convolutions at most once"):
        ConvolutionSettings(kind="convolution", halved_after=(3,))
