from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from components.data.dataset import PreparedDataset
from components.networks.building import new_network, write_network
from components.settings.network import CausalTransformerSettings
from components.soft_labels.reader import open_labels
from components.stages.soft_labels import work
from components.stages.workspace import Workspace

PARAMS = """
scenarios:
  tiny:
    task: next_item
    soft_labels: {codec: top_k_tail, k: 4, rows_per_part: 100}
    trainer: {accelerator: cpu}
"""


@pytest.fixture
def workspace(prepared_folder: Path, prepared: PreparedDataset, tmp_path: Path, monkeypatch) -> Workspace:
    """A checkout in which `prepare` and `train_teacher` have run; the teacher has two members."""
    monkeypatch.delenv("RECSTILL_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(PARAMS)
    found = Workspace("tiny", tmp_path)
    shutil.copytree(prepared_folder, found.artifacts / "dataset")
    shape = CausalTransformerSettings(dim=8, blocks=1, heads=2, ffn_dim=8, max_length=6, dropout=0.1)
    for member in range(2):
        folder = found.artifacts / "teacher" / f"member-{member}"
        folder.mkdir(parents=True)
        torch.manual_seed(member)
        write_network(folder, new_network(shape, prepared.items))
    (found.artifacts / "teacher" / "teacher.json").write_text('{"members": 2}')
    return found


def test_the_stage_leaves_a_manifest_and_figures_and_the_parts_in_the_store(
    workspace: Workspace, prepared: PreparedDataset, tmp_path: Path
) -> None:
    work(workspace)
    path = workspace.artifacts / "soft_labels" / "manifest.json"
    reader = open_labels(path, prepared.digest)
    assert reader.labels(torch.arange(prepared.points)).log_probs.shape == (prepared.points, 4)
    metrics = json.loads((workspace.artifacts / "metrics" / "soft_labels.json").read_text())
    assert metrics["rows"] == prepared.points
    assert metrics["cache_id"] == reader.manifest.id
    assert 0 < metrics["mean_top1_probability"] < metrics["mean_kept_mass"] < 1
    # 4 ids and 4 logs of two bytes each, and the tail.
    assert 18 <= metrics["bytes_per_row"] <= 25
    assert metrics["bytes"] == sum(file.stat().st_size for file in tmp_path.rglob("part-*.safetensors"))


def test_a_calibrated_teacher_makes_another_cache_and_its_figures_say_what_was_gained(
    workspace: Workspace, tmp_path: Path
) -> None:
    work(workspace)
    before = json.loads((workspace.artifacts / "metrics" / "soft_labels.json").read_text())
    (tmp_path / "params.yaml").write_text(PARAMS.replace("k: 4,", "k: 4, calibrate: true,"))
    work(workspace)
    after = json.loads((workspace.artifacts / "metrics" / "soft_labels.json").read_text())
    assert before["cache_id"] != after["cache_id"]
    manifest = json.loads((workspace.artifacts / "soft_labels" / "manifest.json").read_text())
    assert manifest["codec"]["teacher_temperature"] == after["calibration_temperature"] != 1.0
    assert after["calibration_nll_after"] < after["calibration_nll_before"]
    assert {"calibration_ece_before", "calibration_ece_after", "calibration_events"} <= after.keys()
    assert not any(name.startswith("calibration") for name in before)


def test_the_manifest_names_neither_a_time_nor_a_place_and_is_the_same_again(
    workspace: Workspace, tmp_path: Path
) -> None:
    path = workspace.artifacts / "soft_labels" / "manifest.json"
    work(workspace)
    first = path.read_bytes()
    assert str(tmp_path).encode() not in first
    shutil.rmtree(tmp_path / ".recstill")
    work(workspace)
    assert path.read_bytes() == first
