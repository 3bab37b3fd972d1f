"""How good a student becomes from 16 labels a point, beside one that sees all of the teacher's distribution."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from components.evaluation.comparison import paired_bootstrap
from components.evaluation.scoring import network_scorer
from components.networks.building import read_network, write_network
from components.networks.ensemble import teacher_digest
from components.settings.training import TrainerSettings
from components.soft_labels.labels import SoftLabels
from components.soft_labels.manifest import Manifest
from components.soft_labels.reader import SoftLabelReader
from components.soft_labels.writer import write_cache
from components.storage.atomic import new_folder
from components.storage.folder_store import FolderStore
from components.tasks.full_ranking import ranking
from components.tasks.next_item import NextItem
from components.training.fitting import fit, initial_network
from tests.benchmarks.soft_labels.recipe import DISTILLATION, SEEDS, Bench, network, opened, optimization, soft_labels

CACHED = "sampled"
VARIANTS = ("full", CACHED, "top_k_tail", "top_k_renormalised")


def cache(bench: Bench, codec: str = CACHED) -> SoftLabelReader:
    """A reader of the teacher's labels, which are written unless they are there."""
    store = FolderStore(bench.folder / "store")
    return SoftLabelReader(store, write_labels(bench, store, codec), bench.folder / "disk-cache")


def write_labels(bench: Bench, store: FolderStore, codec: str = CACHED) -> Manifest:
    digests = {"teacher_digest": teacher_digest(bench.folder / "teacher"), "dataset_digest": bench.dataset.digest}
    return write_cache(store, bench.teacher, bench.task, soft_labels(codec), **digests, show=False)


class WholeDistribution:
    """All K probabilities of the teacher, in the contexts in which the cache has them, from its hidden states."""

    def __init__(self, bench: Bench) -> None:
        self._teacher, self._outcomes = bench.teacher, bench.task.outcomes
        file = bench.folder / "hidden.npy"
        if not file.is_file():
            with torch.inference_mode():
                batches = bench.task.scoring_batches(0, bench.task.points, 16)
                hidden = [self._teacher.encode(*batch.inputs).numpy().copy() for batch in batches]
            np.save(file, np.concatenate(hidden))
        self._hidden = torch.from_numpy(np.load(file))

    @torch.no_grad()
    def labels(self, points: torch.Tensor) -> SoftLabels:
        logits = self._teacher.score(self._hidden[points])
        return SoftLabels(None, torch.log_softmax(logits, dim=1), None, self._outcomes)

    def prefetch(self) -> None:
        """Everything is here."""


class Renormalised:
    """The k largest as if there were nothing else: what others store."""

    def __init__(self, labels: SoftLabelReader) -> None:
        self._labels = labels

    def labels(self, points: torch.Tensor) -> SoftLabels:
        found = self._labels.labels(points)
        return found._replace(log_probs=torch.log_softmax(found.log_probs, dim=1), tail=None)

    def prefetch(self) -> None:
        """As the reader that it asks."""
        self._labels.prefetch()


def labels_of(bench: Bench, variant: str):
    match variant:
        case "full":
            return WholeDistribution(bench)
        case "top_k_renormalised":
            return Renormalised(cache(bench, "top_k_tail"))
        case codec:
            return cache(bench, codec)


def student_folder(bench: Bench, variant: str, seed: int) -> Path:
    return bench.folder / "students" / f"{variant}-{seed}"


def train_student(bench: Bench, variant: str, seed: int) -> None:
    """One student, and the NDCG@10 of each test event."""
    folder = student_folder(bench, variant, seed)
    if folder.is_dir():
        return
    settings = network(bench.name, student=True)
    task = NextItem(bench.dataset, settings.max_length)
    student = initial_network(settings, task.outcomes, seed)
    fit(
        student,
        task,
        optimization(bench.name, student=True),
        TrainerSettings(),
        seed,
        labels=labels_of(bench, variant),
        distillation=DISTILLATION,
        name=f"{bench.name} {variant} {seed}",
    )
    found = ranking(network_scorer(student), task.evaluation_batches("test", 256), task.outcomes)
    with new_folder(folder) as made:
        write_network(made, student)
        np.save(made / "ndcg10.npy", found.ndcg)
        np.save(made / "users.npy", found.users)


def trained_student(bench: Bench, variant: str, seed: int):
    return read_network(student_folder(bench, variant, seed))


def gaps(bench: Bench) -> tuple[dict[str, float], dict[str, tuple[float, float, float]]]:
    """Mean NDCG@10 a variant, and how much of that of ``full`` is lost, with its interval, over all seeds.

    The same user in several seeds is one user: the interval is that of the mean over the seeds.
    """
    means = {}
    for variant in VARIANTS:
        folders = [student_folder(bench, variant, seed) for seed in SEEDS]
        means[variant] = np.mean([np.load(folder / "ndcg10.npy") for folder in folders], axis=0)
    users = np.load(student_folder(bench, "full", SEEDS[0]) / "users.npy")
    others = {variant: means[variant] for variant in VARIANTS if variant != "full"}
    compared = paired_bootstrap(others, means["full"], users, samples=2000, seed=0)
    lost = {
        variant: (1 - one.retention.estimate, 1 - one.retention.high, 1 - one.retention.low)
        for variant, one in compared.items()
    }
    return {variant: float(mean.mean()) for variant, mean in means.items()}, lost


if __name__ == "__main__":
    train_student(opened(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
