"""What the benchmark trains on each data set, whole or (``QUICK=1``) on a share of its users."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from components.data.dataset import PreparedDataset, read_dataset
from components.data.preparing import prepare, write_dataset
from components.networks.building import write_network
from components.networks.contract import PredictionNetwork
from components.networks.ensemble import TEACHER_FILE, read_teacher, teacher_digest
from components.settings.distillation import DistillationSettings
from components.settings.network import CausalTransformerSettings
from components.settings.prepare import PrepareSettings
from components.settings.soft_labels import SoftLabelSettings
from components.settings.training import OptimizationSettings, TrainerSettings
from components.storage.atomic import new_folder, write_json
from components.storage.digests import file_digest
from components.tasks.next_item import NextItem
from components.training.fitting import fit, initial_network

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("BENCH_DATA", ROOT.parent / "shared/data"))
QUICK = os.environ.get("QUICK", "") not in ("", "0")
FILES = {"ml-1m": DATA / "ml-1m/ml-1m.txt.gz", "beauty": DATA / "beauty/Beauty.txt.gz"}
LABELS = 16
DISTILLATION = DistillationSettings(lambda_hard=0.2, lambda_soft=0.8, temperature=1.0)
STUDENT_EPOCHS = {"ml-1m": 2, "beauty": 2} if QUICK else {"ml-1m": 8, "beauty": 6}
SEEDS = (0,) if QUICK else (0, 1, 2)


class Bench(NamedTuple):
    """One data set with its teacher, in a folder that a later run goes on with."""

    name: str
    folder: Path
    dataset: PreparedDataset
    task: NextItem
    teacher: PredictionNetwork


def soft_labels(codec: str = "sampled") -> SoftLabelSettings:
    return SoftLabelSettings.model_validate({"codec": codec, "k": LABELS, "head": LABELS // 2, "rows_per_part": 16_384})


def network(name: str, student: bool) -> CausalTransformerSettings:
    length = {"ml-1m": 100, "beauty": 50}[name]
    dropout = {"ml-1m": 0.2, "beauty": 0.5}[name]
    if student:
        return CausalTransformerSettings(dim=32, blocks=1, heads=2, ffn_dim=128, max_length=length, dropout=dropout / 2)
    return CausalTransformerSettings(dim=128, blocks=2, heads=2, ffn_dim=512, max_length=length, dropout=dropout)


def optimization(name: str, student: bool) -> OptimizationSettings:
    epochs = (
        STUDENT_EPOCHS[name] if student else ({"ml-1m": 3, "beauty": 3} if QUICK else {"ml-1m": 12, "beauty": 15})[name]
    )
    common = {
        "max_epochs": epochs,
        "patience": epochs,
        "warmup_share": 0.08,
        "final_learning_rate_share": 0.01,
        "average_decay": 0.995,
    }
    if student:
        return OptimizationSettings(batch_size=32, learning_rate=0.004, weight_decay=0.05, **common)
    if name == "ml-1m":
        return OptimizationSettings(batch_size=16, learning_rate=0.0015, weight_decay=0.3, **common)
    return OptimizationSettings(batch_size=16, learning_rate=0.002, weight_decay=0.3, **common)


def opened(name: str) -> Bench:
    """The data set and its teacher; each is made when it is not there yet."""
    kind = "quick" if QUICK else "full"
    folder = ROOT / ".recstill/benchmarks/soft-labels" / f"{name}-{kind}"
    data = folder / "dataset"
    if not data.is_dir():
        events = pl.DataFrame(list(_events(name)), schema=["user", "item", "timestamp", "row"], orient="row")
        if QUICK:
            events = events.filter(pl.col("user") % 8 == 0)
        events = events.with_columns(pl.col("user", "item").cast(pl.String))
        items = pl.DataFrame({"id": events["item"].unique().sort()}).with_columns(title=pl.lit(None, pl.String))
        settings = PrepareSettings(split="leave_one_out", min_user_events=3, min_item_events=1)
        write_dataset(data, prepare(events, items, settings, file_digest(FILES[name])))
    dataset = read_dataset(data)
    task = NextItem(dataset, network(name, student=False).max_length)
    if not (folder / "teacher").is_dir():
        print(f"{name}: training the teacher", flush=True)
        teacher = initial_network(network(name, student=False), task.outcomes, seed=0)
        result = fit(teacher, task, optimization(name, student=False), TrainerSettings(), seed=0, name="teacher")
        with new_folder(folder / "teacher") as made:
            (made / "member-0").mkdir()
            write_network(made / "member-0", teacher)
            write_json(made / TEACHER_FILE, {"members": 1})
            write_json(made / TEACHER_FILE, {"members": 1, "digest": teacher_digest(made)})
            (made / "curve.json").write_text(json.dumps([row.validation for row in result.curve]))
    teacher = read_teacher(folder / "teacher")
    teacher.requires_grad_(False)
    return Bench(name, folder, dataset, task, teacher)


def _events(name: str) -> Iterator[tuple[int, int, int, int]]:
    """Users, items, and the place in the file as the time: both files are in the order of time within a user."""
    row = 0
    with gzip.open(FILES[name], "rt", encoding="ascii") as lines:
        for line in lines:
            user, *items = map(int, line.split())
            for item in items:
                yield user, item, row, row
                row += 1
