"""``behaviour``: MovieLens 1M, a rating of 4 or more; ``ML_1M=folder`` reads it from there instead of its archive."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tests.benchmarks.tasks.runs import SHIPPED, Benchmark, Figure, Run, costs, difference, level, mean_of


def figures(runs: Sequence[Run]) -> list[Figure]:
    return [
        mean_of("behaviour_auc_logistic", runs, lambda run: run.metrics["contenders"]["logistic"]["auc"]),
        level("behaviour_auc_teacher", runs, "teacher"),
        level("behaviour_auc_shipped", runs, SHIPPED),
        # Against the same student that has seen no teacher.
        difference("behaviour_gain", runs, SHIPPED, "baseline"),
        difference("behaviour_gap", runs, "teacher", SHIPPED),
        mean_of("behaviour_calibration", runs, lambda run: run.judged(SHIPPED).figures["calibration"]),
        *costs("behaviour", runs),
    ]


BENCHMARK = Benchmark(
    "behaviour",
    figures,
    (
        f"source.path={os.environ.get('ML_1M', 'components/data/catalogue/movielens-1m.yaml')}",
        # On ten times the rows chance moves the ratio by a third as much.
        "gate.figures.calibration.min=0.99",
        "gate.figures.calibration.max=1.01",
        # A user teaches neither network anything here that the history does not; several networks that are held
        # back more are a better teacher than one.
        "prepare.privileged=[user]",
        "teacher.members=3",
        "teacher.network.dropout=0.2",
        "teacher.optimization.weight_decay=0.05",
        "student.optimization.max_epochs=2",
        *(f"{part}.optimization.batch_size=1024" for part in ("teacher", "student", "pruning")),
    ),
)
