"""What each loss of distillation does for the student of MovieLens-100K: ``make bench-losses``.

One teacher, one cache of its labels; every loss trains the same students, seeds 0, 1 and 2, of the scenario
``movielens``. Each is compared with the two terms that ship, on the test events, by a paired bootstrap over the users,
whose NDCG@10 is averaged over the seeds first. ``EPOCHS`` shortens the trainings, ``SEEDS=0`` takes one seed,
``ONLY=DIST,RCE-KD`` some of the losses. What has been trained is kept in ``.recstill/benchmarks/losses``, and a call
that was interrupted goes on where it stopped (its CPU seconds are then those of the last call alone).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from components.evaluation.comparison import Interval, paired_bootstrap
from components.evaluation.scoring import network_scorer
from components.networks.building import write_network
from components.settings.threads import threads_per_network
from components.storage.atomic import new_folder
from components.tasks.full_ranking import ranking
from components.training.fitting import fit, initial_network
from tests.benchmarks.losses.recipe import FOLDER, LOSSES, REFERENCE, SEEDS, Bench, distillation, opened

SAMPLES = 4000


def student_folder(bench: Bench, name: str, seed: int) -> Path:
    plain = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    return FOLDER / "students" / f"{plain}-{bench.optimization.max_epochs}-{seed}"


def train(bench: Bench, name: str, seed: int) -> None:
    """One student, the NDCG@10 of each test event, and the CPU seconds that its training took."""
    folder = student_folder(bench, name, seed)
    if folder.is_dir():
        return
    student = initial_network(bench.scenario.student.network, bench.task.outcomes, seed)
    started = time.process_time()
    fit(
        student,
        bench.task,
        bench.optimization,
        bench.scenario.trainer,
        seed,
        labels=bench.labels,
        distillation=distillation(name),
        name=f"{name}, seed {seed}",
        scratch=FOLDER / "states" / folder.name,
        scenario="movielens",
        threads=threads_per_network(),
        plain=True,
    )
    seconds = time.process_time() - started
    found = ranking(network_scorer(student), bench.task.evaluation_batches("test", 256), bench.task.outcomes)
    with new_folder(folder) as made:
        write_network(made, student)
        np.savez(made / "test.npz", ndcg=found.ndcg, users=found.users, seconds=seconds)


def table(bench: Bench, names: list[str]) -> str:
    """Rows of Markdown, best first."""
    results = {name: [np.load(student_folder(bench, name, seed) / "test.npz") for seed in SEEDS] for name in names}
    means = {name: np.mean([one["ndcg"] for one in found], axis=0) for name, found in results.items()}
    others = {name: values for name, values in means.items() if name != REFERENCE}
    users = results[REFERENCE][0]["users"]
    compared = paired_bootstrap(others, means[REFERENCE], users, samples=SAMPLES, seed=0)
    seconds = {name: np.mean([one["seconds"] for one in found]) for name, found in results.items()}
    lines = ["| loss | NDCG@10 | seeds | to the reference, 95 % interval | CPU-s |", "|---|---|---|---|---|"]
    for name in sorted(names, key=lambda name: -float(means[name].mean())):
        seeds = ", ".join(f"{float(one['ndcg'].mean()):.4f}".lstrip("0") for one in results[name])
        difference = "" if name == REFERENCE else _words(compared[name].difference)
        lines.append(f"| {name} | {means[name].mean():.4f} | {seeds} | {difference} | {seconds[name]:.0f} |")
    return "\n".join(lines)


def _words(interval: Interval) -> str:
    return f"{interval.estimate:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"


def main() -> None:
    only = [name for name in os.environ.get("ONLY", "").split(",") if name]
    names = [name for name in LOSSES if not only or name in only or name == REFERENCE]
    bench = opened()
    runs = [(name, seed) for seed in SEEDS for name in names]
    missing = [run for run in runs if not student_folder(bench, *run).is_dir()]
    started = time.monotonic()
    for done, run in enumerate(missing):
        train(bench, *run)
        left = (time.monotonic() - started) / (done + 1) * (len(missing) - done - 1)
        print(f"student {done + 1} of {len(missing)}, {left:.0f} s left", flush=True)
    print(f"\nreference: {REFERENCE}; epochs {bench.optimization.max_epochs}, seeds {', '.join(map(str, SEEDS))}")
    print(table(bench, names))


if __name__ == "__main__":
    main()
