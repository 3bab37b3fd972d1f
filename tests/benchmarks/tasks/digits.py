"""``digits``: scikit-learn's 1,797 images; each seed has a split of its own, so that no one split decides."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.tasks.runs import SHIPPED, Benchmark, Figure, Run, costs, difference, level


def figures(runs: Sequence[Run]) -> list[Figure]:
    return [
        level("digits_accuracy_teacher", runs, "teacher"),
        level("digits_accuracy_shipped", runs, SHIPPED),
        difference("digits_gap", runs, SHIPPED, "teacher"),
        # Against the same student that has seen no teacher.
        difference("digits_gain", runs, "student", "baseline"),
        *costs("digits", runs),
    ]


BENCHMARK = Benchmark("digits", figures, ("prepare.seed={seed}",))
