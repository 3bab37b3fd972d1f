"""The stage `train_teacher` on two processor devices, by Lightning's DDP: they must take every step together."""

import csv
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from components.data.ingesting import ingest
from components.data.preparing import prepare, write_dataset
from components.data.sources import open_source
from components.settings.prepare import PrepareSettings
from components.settings.source import SyntheticSource

ROOT = Path(__file__).parents[2]
TWO = {"accelerator": "cpu", "devices": 2, "strategy": "ddp"}


def checkout(folder: Path, trainer: dict[str, object], users: int) -> Path:
    """A folder with parameters and a prepared data set of so many users, who have one validation event each."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    scenario = document["scenarios"]["synthetic"]
    scenario["teacher"] = {
        "network": {"dim": 8, "blocks": 1, "ffn_dim": 8, "max_length": 8, "dropout": 0},
        "optimization": {"max_epochs": 3, "batch_size": 8, "learning_rate": 0.01},
    }
    scenario["trainer"] = trainer
    settings = SyntheticSource(
        kind="synthetic", path="components/data/synthetic.py", users=users, items=48, events_per_user=12
    )
    found = ingest(open_source(settings, Path()), settings, datetime.now(UTC))
    (folder / "artifacts" / "synthetic").mkdir(parents=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(document))
    made = prepare(found.events, found.items, PrepareSettings(), found.record["digest"])
    write_dataset(folder / "artifacts" / "synthetic" / "dataset", made)
    return folder


def train(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "components.stages.train_teacher", "synthetic"],
        cwd=folder,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "RECSTILL_THREADS": "1", "PYTHONPATH": str(ROOT)},
        timeout=240,
    )


def curve(folder: Path) -> list[float]:
    with (folder / "artifacts" / "synthetic" / "curves" / "train_teacher.csv").open() as stream:
        return [float(row["validation"]) for row in csv.DictReader(stream)]


def test_two_devices_learn_what_one_does(tmp_path: Path) -> None:
    """Of 61 points one device judges two batches, of 30 and of one, and the other device one batch, of 30."""
    found = []
    for name, trainer in (("one", {"accelerator": "cpu", "devices": 1}), ("two", TWO)):
        folder = checkout(tmp_path / name, trainer, users=61)
        done = train(folder)
        assert done.returncode == 0, done.stderr
        found.append(curve(folder))
    assert len(found[0]) == 3
    assert found[1] == pytest.approx(found[0], abs=2e-3)
