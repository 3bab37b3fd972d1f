"""``news``: Reuters R8 with its official split; each seed has a validation split of its own."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.tasks.runs import SHIPPED, Benchmark, Figure, Run, costs, difference, level


def figures(runs: Sequence[Run]) -> list[Figure]:
    return [
        level("news_accuracy_svm", runs, "linear"),
        level("news_accuracy_teacher", runs, "teacher"),
        level("news_accuracy_shipped", runs, SHIPPED),
        difference("news_gap", runs, SHIPPED, "teacher"),
        # Against the same student that has seen no teacher.
        difference("news_gain", runs, "student", "baseline"),
        *costs("news", runs),
    ]


BENCHMARK = Benchmark("news", figures)
