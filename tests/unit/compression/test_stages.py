"""The stages ``prune`` and ``quantize`` on a small scenario whose networks are not trained."""

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from components.compression.rounding import ROUNDING_FILE
from components.data.dataset import read_dataset
from components.networks.building import read_network, write_network
from components.settings.soft_labels import SoftLabelSettings
from components.soft_labels.manifest import written
from components.soft_labels.writer import write_cache
from components.stages import prune, quantize
from components.stages.workspace import Workspace
from components.storage.checkpoints import checkpoint_digest
from components.storage.digests import file_digest
from components.storage.object_store import open_store
from components.tasks.batch import Feed
from components.tasks.building import task_of
from components.training.callbacks import Epoch
from tests.unit.compression.shaken import shaken_network

PRUNING = {"ffn_ratio": 0.5, "sparsity_epochs": 1, "calibration_batches": 2}
OPTIMIZATION = {"max_epochs": 1, "patience": 1, "learning_rate": 0.001}


@pytest.fixture
def workspace(tmp_path: Path, prepared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECSTILL_STORE", f"file://{tmp_path}/store")
    workspace = Workspace("tiny", tmp_path)
    shutil.copytree(prepared_folder, workspace.artifacts / "dataset")
    dataset = read_dataset(prepared_folder)
    student = shaken_network(dataset.items, max_length=8, blocks=1)
    for place in ("student", "pruned", "teacher/member-0"):
        (workspace.artifacts / place).mkdir(parents=True)
        write_network(workspace.artifacts / place, student)
    task = task_of("next_item", dataset, 8)
    manifest = write_cache(
        open_store(),
        student,
        task,
        SoftLabelSettings(k=8),
        teacher_digest="0" * 64,
        dataset_digest=dataset.digest,
        show=False,
    )
    (workspace.artifacts / "soft_labels").mkdir()
    (workspace.artifacts / "soft_labels" / "manifest.json").write_bytes(written(manifest))
    return workspace


def set_params(workspace: Workspace, **pruning: object) -> None:
    scenario = {
        "task": "next_item",
        "seed": 0,
        "trainer": {"accelerator": "cpu"},
        "distillation": {"lambda_hard": 0.5, "lambda_soft": 0.5},
        "pruning": {**PRUNING, "optimization": OPTIMIZATION, **pruning},
        "quantization": {"table_block": 16, "calibration_histories": 32},
    }
    (workspace.root / "params.yaml").write_text(yaml.safe_dump({"scenarios": {"tiny": scenario}}))


@pytest.mark.parametrize("importance", ["taylor", "sparsity"])
def test_prune_writes_a_smaller_network_and_says_what_it_cost(workspace: Workspace, importance: str) -> None:
    set_params(workspace, importance=importance, heads_ratio=0.5)
    prune.work(workspace)
    network = read_network(workspace.artifacts / "pruned")
    metrics = json.loads((workspace.artifacts / "metrics" / "prune.json").read_text())
    assert metrics["kept"] == {"blocks.0.ffn": "16 of 24", "blocks.0.heads": "1 of 2"}
    assert metrics["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert metrics["parameters"] < metrics["parameters_before"]
    assert metrics["mask_difference"] <= 1e-6
    assert {"validation_ndcg10", "validation_ndcg10_before", "validation_ndcg10_after_cut", "cost"} <= metrics.keys()
    curve = (workspace.artifacts / "curves" / "prune.csv").read_text().splitlines()
    assert curve[0] == "network,epoch,train_loss,validation" and curve[1].startswith("pruned,1,")


def test_prune_in_steps_reaches_the_same_cut_and_goes_on_where_it_was_interrupted(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    optimization = {**OPTIMIZATION, "max_epochs": 3, "patience": 3}
    set_params(
        workspace, steps=2, ffn_ratio=0, ratios={"blocks.0.ffn": 0.67, "blocks.0.heads": 0.5}, optimization=optimization
    )
    prune.work(workspace)
    capsys.readouterr()
    digest = checkpoint_digest(workspace.artifacts / "pruned")
    metrics = json.loads((workspace.artifacts / "metrics" / "prune.json").read_text())
    assert metrics["kept"] == {"blocks.0.ffn": "8 of 24", "blocks.0.heads": "1 of 2"}
    assert [step["kept"]["blocks.0.ffn"] for step in metrics["steps"]] == ["16 of 24", "8 of 24"]
    assert metrics["epochs"] == 3 and metrics["mask_difference"] <= 1e-6
    assert metrics["validation_ndcg10"] == metrics["steps"][-1]["validation_ndcg10"]
    curve = (workspace.artifacts / "curves" / "prune.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in curve[1:]] == ["pruned step 1 of 2", "pruned", "pruned"]

    shutil.rmtree(workspace.artifacts / "pruned")
    watched = []

    def stop(name: str, epoch: Epoch) -> None:
        watched.append((name, epoch.epoch))
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    workspace.watch = stop
    with pytest.raises(KeyboardInterrupt):
        prune.work(workspace)
    assert watched == [("pruned", 1), ("pruned", 2)]
    assert not (workspace.artifacts / "pruned").exists()
    capsys.readouterr()
    workspace.watch = None
    prune.work(workspace)
    told = capsys.readouterr().out
    assert "pruned step 2 of 2 resumes after epoch 1/2" in told and "step 1 of 2 epoch" not in told
    assert checkpoint_digest(workspace.artifacts / "pruned") == digest


def test_what_is_cut_out_of_the_student_may_learn_from_the_student_alone(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    student = read_network(workspace.artifacts / "student")
    task = task_of("next_item", read_dataset(workspace.artifacts / "dataset"), 8)
    (batch,) = task.scoring_batches(0, task.points, 4096)
    optimization = {**OPTIMIZATION, "max_epochs": 4, "patience": 4, "learning_rate": 0.01}
    distances = []
    for whose in ("teacher", "student"):
        set_params(workspace, soft_labels_of=whose, optimization=optimization)
        prune.work(workspace)
        assert json.loads((workspace.artifacts / "metrics" / "prune.json").read_text())["soft_labels_of"] == whose
        with torch.inference_mode():
            expected, found = (
                network(*batch.inputs).log_softmax(1)
                for network in (student, read_network(workspace.artifacts / "pruned"))
            )
        distances.append(float((expected.exp() * (expected - found)).sum(1).mean()))
    # The teacher's labels are the student's here, too; but beside them it learns from what users did.
    assert distances[1] < 0.8 * distances[0]
    assert not (workspace.root / ".recstill" / "training").joinpath("tiny-prune").exists()
    digest = checkpoint_digest(workspace.artifacts / "pruned")

    def stop(_: str, epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    workspace.watch = stop
    with pytest.raises(KeyboardInterrupt):
        prune.work(workspace)
    capsys.readouterr()
    workspace.watch = None
    prune.work(workspace)
    assert "pruned resumes after epoch" in capsys.readouterr().out
    assert checkpoint_digest(workspace.artifacts / "pruned") == digest


def test_prune_copies_the_student_when_all_ratios_are_zero(workspace: Workspace) -> None:
    set_params(workspace, ffn_ratio=0)
    shutil.rmtree(workspace.artifacts / "pruned")
    prune.work(workspace)
    digests = [checkpoint_digest(workspace.artifacts / place) for place in ("student", "pruned")]
    assert digests[0] == digests[1]


def test_quantize_writes_every_variant_and_a_list_of_them(workspace: Workspace) -> None:
    set_params(workspace)
    quantize.work(workspace)
    folder = workspace.artifacts / "quantized"
    entries = {entry["name"]: entry for entry in json.loads((folder / "variants.json").read_text())["variants"]}
    assert len([name for name in entries if name.startswith("pruned.")]) == 8
    compared = {"student.fp32", "student.int8_table8"}
    compared |= {f"teacher_member.{form}" for form in ("fp32", "int8_table8", "int8_table4")}
    assert compared <= set(entries) and list(entries) == sorted(entries)
    for entry in entries.values():
        path = folder / entry["file"]
        assert (path.stat().st_size, file_digest(path)) == (entry["bytes"], entry["sha256"])
    assert entries["pruned.int8_table4"]["table_bits"] == 4
    assert entries["student.fp32"]["from_digest"] == checkpoint_digest(workspace.artifacts / "student")


@pytest.mark.parametrize("aware", [None, {"form": "int4_table4", "table_block": 16}])
def test_a_network_that_got_used_to_a_form_keeps_the_nearest_codes(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, aware: dict[str, Any] | None
) -> None:
    set_params(workspace, quantization_aware=aware)
    shutil.rmtree(workspace.artifacts / "pruned")
    prune.work(workspace)
    assert (workspace.artifacts / "pruned" / ROUNDING_FILE).is_file() == (aware is not None)
    given = {}

    def spy(*passed: Any, made_from: str, **_: Any) -> Iterator[Any]:
        given[made_from] = passed[3].rounding
        return iter(())

    monkeypatch.setattr(quantize, "write_variants", spy)
    quantize.work(workspace)
    pruned = "gptq" if aware is None else "nearest"
    assert given == {"pruned": pruned, "student": "gptq", "teacher_member": "gptq"}


def test_calibration_sees_training_events_only(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    set_params(workspace)
    feeds: list[Feed] = []

    def spy(*given: Any, **_: Any) -> Iterator[Any]:
        feeds.extend(given[4])
        return iter(())

    monkeypatch.setattr(quantize, "write_variants", spy)
    quantize.work(workspace)
    dataset = read_dataset(workspace.artifacts / "dataset")
    training = {
        tuple(dataset.item[max(begin, end - 8) : end].tolist())
        for begin, stop in pairwise(dataset.offsets)
        for end in range(begin + 1, stop + 1)
        if (dataset.split[begin:end] == 0).all()
    }
    histories = {
        tuple(items[:length].tolist())
        for feed in feeds
        for items, length in zip(feed["items"], feed["length"], strict=True)
    }
    assert histories and histories <= training
