"""What the benchmark trains: the scenario ``movielens`` of params.yaml, its student with one loss after the other."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from components.data.dataset import PreparedDataset, read_dataset
from components.data.ingesting import ingest
from components.data.preparing import prepare, write_dataset
from components.data.sources import open_source
from components.networks.building import write_network
from components.networks.ensemble import TEACHER_FILE, read_teacher, teacher_digest
from components.settings.distillation import DistillationSettings
from components.settings.scenario import Scenario
from components.settings.training import OptimizationSettings
from components.soft_labels.reader import SoftLabelReader
from components.soft_labels.writer import write_cache
from components.storage.atomic import new_folder, write_json
from components.storage.folder_store import FolderStore
from components.tasks.next_item import NextItem
from components.training.members import TeacherTraining, train_members
from flows.params import read_params

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / ".recstill/benchmarks/losses"
EPOCHS = int(os.environ.get("EPOCHS", "0"))
SEEDS = tuple(int(seed) for seed in os.environ.get("SEEDS", "0,1,2").split(","))
REFERENCE = "cross entropy + divergence"

HARD: dict[str, Any] = {"kind": "cross_entropy", "weight": 0.2}
SOFT: dict[str, Any] = {"kind": "divergence", "weight": 0.8}
FADING = {"kind": "cosine", "first": 1.0, "last": 0.0}
# One setting each, from the paper where it gives one; none was searched for.
LOSSES: dict[str, list[dict[str, Any]]] = {
    REFERENCE: [HARD, SOFT],
    "cross entropy alone": [{**HARD, "weight": 1.0}],
    "divergence at T = 2": [HARD, {**SOFT, "temperature": 2.0}],
    "divergence fading away": [
        HARD,
        {**SOFT, "schedule": FADING},
        {**HARD, "weight": 0.8, "schedule": {"kind": "cosine"}},
    ],
    "divergence on an auxiliary head": [{**HARD, "weight": 1.0}, {**SOFT, "head": "auxiliary"}],
    "sampled": [
        {"kind": "sampled_cross_entropy", "weight": 0.2, "negatives": 256},
        {"kind": "sampled_divergence", "weight": 0.8, "negatives": 256},
        {**HARD, "weight": 0.0},
    ],
    "standardised divergence": [HARD, {"kind": "standardised_divergence", "weight": 0.8}],
    "decoupled": [HARD, {"kind": "decoupled_divergence", "weight": 0.8, "beta": 2.0}],
    "DIST": [{**HARD, "weight": 1.0}, {"kind": "correlation", "weight": 2.0}],
    "relaxed ranking": [HARD, {"kind": "relaxed_ranking", "weight": 0.8}],
    "RCE-KD": [HARD, {"kind": "rejuvenated_cross_entropy", "weight": 0.8}],
    "both + DIST": [HARD, SOFT, {"kind": "correlation", "weight": 1.0}],
    "both + relaxed ranking": [HARD, SOFT, {"kind": "relaxed_ranking", "weight": 0.2}],
    "both + RCE-KD": [HARD, SOFT, {"kind": "rejuvenated_cross_entropy", "weight": 0.5}],
    "both + hint": [HARD, SOFT, {"kind": "hint", "weight": 0.5}],
    "both + topology": [HARD, SOFT, {"kind": "topology", "weight": 1.0}],
}


class Bench(NamedTuple):
    """The data and the teacher's labels, in a folder that a later run goes on with."""

    scenario: Scenario
    dataset: PreparedDataset
    task: NextItem
    labels: SoftLabelReader

    @property
    def optimization(self) -> OptimizationSettings:
        """Of a student."""
        settings = self.scenario.student.optimization
        return settings.model_copy(update={"max_epochs": EPOCHS, "patience": EPOCHS}) if EPOCHS else settings


def distillation(name: str) -> DistillationSettings:
    return DistillationSettings.model_validate({"losses": LOSSES[name]})


def opened() -> Bench:
    """The data set, its teacher (seed 0) and the labels; each is made when it is not there yet."""
    scenario = read_params(ROOT).scenarios["movielens"]
    if not (FOLDER / "dataset").is_dir():
        found = ingest(open_source(scenario.source, ROOT), scenario.source, datetime.now(UTC))
        write_dataset(FOLDER / "dataset", prepare(found.events, found.items, scenario.prepare, found.record["digest"]))
    dataset = read_dataset(FOLDER / "dataset")
    if not (FOLDER / "teacher").is_dir():
        print("training the teacher", flush=True)
        training = TeacherTraining(
            dataset=FOLDER / "dataset",
            task=scenario.task,
            settings=scenario.teacher,
            trainer=scenario.trainer,
            seed=0,
            scratch=FOLDER / "scratch",
            scenario="movielens",
        )
        members = train_members(training)
        with new_folder(FOLDER / "teacher") as folder:
            for number, member in enumerate(members):
                (folder / f"member-{number}").mkdir()
                write_network(folder / f"member-{number}", member.network)
            write_json(folder / TEACHER_FILE, {"members": len(members)})
            write_json(folder / TEACHER_FILE, {"members": len(members), "digest": teacher_digest(folder)})
    teacher = read_teacher(FOLDER / "teacher")
    store = FolderStore(FOLDER / "store")
    manifest = write_cache(
        store,
        teacher,
        NextItem(dataset, teacher.max_length),
        scenario.soft_labels.model_copy(update={"hidden_states": True}),
        teacher_digest=teacher_digest(FOLDER / "teacher"),
        dataset_digest=dataset.digest,
        show=False,
    )
    labels = SoftLabelReader(store, manifest, FOLDER / "disk-cache")
    return Bench(scenario, dataset, NextItem(dataset, scenario.student.network.max_length), labels)
