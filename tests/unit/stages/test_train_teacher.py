"""The stage `train_teacher` with several generations, for every kind of task."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from components.networks.building import read_network
from components.networks.ensemble import teacher_digest
from components.settings.teacher import TeacherSettings
from components.settings.threads import MEMBERS_VARIABLE
from components.settings.training import TrainerSettings
from components.soft_labels.manifest import read_manifest
from components.soft_labels.reader import SoftLabelReader
from components.stages import ingest, prepare, train_teacher
from components.storage.folder_store import FolderStore
from components.tasks.building import open_task, task_class
from components.training.generations import train_generations
from components.training.members import TeacherTraining
from tests.unit.tasks.test_click import SCENARIO as CLICK
from tests.unit.tasks.test_image import SCENARIO as IMAGE
from tests.unit.tasks.test_text import SCENARIO as TEXT
from tests.unit.tasks.test_text import texts
from tests.unit.tasks.test_top_n import SCENARIO as TOP_N
from tests.unit.tasks.test_top_n import sets
from tests.unit.tasks.whole_runs import run

NEXT_ITEM: dict[str, Any] = {
    "task": "next_item",
    "seed": 0,
    "source": {"kind": "synthetic", "path": "x", "users": 60, "items": 48, "events_per_user": 12},
    "prepare": {"split": "leave_one_out"},
    "teacher": {"network": {"dim": 8, "blocks": 1, "heads": 2, "ffn_dim": 8, "max_length": 8}},
    "trainer": {"accelerator": "cpu"},
}
NETWORKS = {"top_n": {"kind": "two_tower", "dim": 8, "hidden": [16], "dropout": 0.1, "max_length": 64}}
SCENARIOS = {scenario["task"]: scenario for scenario in (NEXT_ITEM, CLICK, IMAGE, TEXT, TOP_N)}


def generations(task: str, **settings: Any) -> dict[str, Any]:
    """A task's scenario with a teacher of two generations."""
    scenario = SCENARIOS[task]
    teacher = {
        "network": NETWORKS.get(task, scenario["teacher"]["network"]),
        "optimization": {"max_epochs": 2, "batch_size": 32, "learning_rate": 0.01, "average_decay": 0.5},
        "generations": 2,
    }
    return {**scenario, "teacher": {**teacher, **settings}}


def prepared(root: Path, task: str, **settings: Any) -> tuple[Path, dict[str, Any]]:
    """The artifacts of a scenario in which `ingest` and `prepare` have run, and the scenario."""
    pl.DataFrame(texts(), schema=["label", "text"], orient="row").write_csv(root / "texts.csv")
    (root / "sets").mkdir()
    for name, table in sets().items():
        table.write_csv(root / "sets" / f"{name}.csv")
    scenario = generations(task, **settings)
    return run(root, "tiny", scenario, (ingest, prepare)), scenario


@pytest.mark.parametrize("task", SCENARIOS)
def test_a_teacher_of_two_generations_and_what_is_told_of_both(
    task: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MEMBERS_VARIABLE, "1")
    artifacts, scenario = prepared(tmp_path, task, members=2, first_members=1)
    run(tmp_path, "tiny", scenario, (train_teacher,))
    teacher = json.loads((artifacts / "teacher" / "teacher.json").read_text())
    assert teacher == {"members": 2, "digest": teacher_digest(artifacts / "teacher")}
    assert sorted(path.name for path in (artifacts / "teacher").iterdir()) == ["member-0", "member-1", "teacher.json"]

    with (artifacts / "curves" / "train_teacher.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    names = ["generation-1-member-0", "member-0", "member-1"]
    assert list(dict.fromkeys(row["network"] for row in rows)) == names
    metrics = json.loads((artifacts / "metrics" / "train_teacher.json").read_text())
    key = f"validation_{task_class(task).measures[0].key}"
    best = [max(float(row["validation"]) for row in rows if row["network"] == name) for name in names]
    assert metrics[f"generation_1_{key}"] == pytest.approx(best[0], abs=1e-6)
    assert metrics[key] == pytest.approx((best[1] + best[2]) / 2, abs=1e-6)
    assert (metrics["generations"], metrics["members"], metrics["epochs"]) == (2, 2, len(rows))
    printed = capfd.readouterr().out
    assert "generation 2 of 2: 2 networks" in printed and "\ngeneration-1-member-0: best validation " in printed

    assert not (tmp_path / "store").exists(), "the labels between generations are nobody else's"
    assert not list((tmp_path / ".recstill" / "training").iterdir())


def test_of_one_generation_nothing_more_is_told(tmp_path: Path) -> None:
    artifacts, scenario = prepared(tmp_path, "next_item", generations=1)
    run(tmp_path, "tiny", scenario, (train_teacher,))
    metrics = json.loads((artifacts / "metrics" / "train_teacher.json").read_text())
    assert set(metrics) == {"validation_ndcg10", "epochs", "parameters", "members", "cost"}


def test_labels_are_of_what_the_teacher_itself_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its privileged features as well, which no student has."""
    monkeypatch.setenv("RECSTILL_THREADS", "1")
    artifacts, scenario = prepared(tmp_path, "click")
    settings = TeacherSettings.model_validate(scenario["teacher"])
    scratch = tmp_path / "scratch"
    train_generations(TeacherTraining(artifacts / "dataset", "click", settings, TrainerSettings(), 0, scratch, "tiny"))
    first = scratch / "generation-1"
    network = read_network(first / "teacher" / "member-0")
    task = open_task("click", artifacts / "dataset", network.max_length)
    [batch] = task.scoring_batches(0, task.points, task.points)
    with torch.inference_mode():
        logits = network(*batch.inputs)[:, 0]
    manifest = read_manifest((first / "labels.json").read_bytes(), "labels.json")
    assert manifest.codec["name"] == "logit"
    with SoftLabelReader(FolderStore(first / "labels"), manifest, tmp_path / "cache") as reader:
        labels = reader.labels(torch.arange(task.points))
    yes = torch.sigmoid(logits)
    assert torch.allclose(labels.log_probs.exp()[:, -1], yes, atol=2e-3)
    assert network.record()["single"] == 2, "items, and users, which are privileged"
