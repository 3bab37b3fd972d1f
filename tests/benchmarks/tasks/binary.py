"""``binary``: 1,000 samples of 10 values."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.tasks.runs import SHIPPED, Benchmark, Figure, Run, costs, difference, level


def figures(runs: Sequence[Run]) -> list[Figure]:
    return [
        level("binary_accuracy_teacher", runs, "teacher"),
        level("binary_accuracy_shipped", runs, SHIPPED),
        # Against the same student that has seen no teacher.
        difference("binary_gain", runs, "student", "baseline"),
        *costs("binary", runs),
    ]


BENCHMARK = Benchmark("binary", figures)
