"""``news``: Reuters R8 with its official split; the seeds are those of the trainings."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.tasks.runs import SHIPPED, Benchmark, Figure, Run, costs, difference, level, mean_of


def package_ratio(run: Run) -> float:
    """Bytes of all files of the package as a share of one teacher member's fp32 weights."""
    files = (run.artifacts / "package").iterdir()
    return float(sum(file.stat().st_size for file in files) / run.metrics["contenders"]["teacher_member"]["bytes"])


def figures(runs: Sequence[Run]) -> list[Figure]:
    return [
        mean_of("news_accuracy_svm", runs, lambda run: run.metrics["contenders"]["linear"]["accuracy"]),
        level("news_accuracy_teacher", runs, "teacher"),
        level("news_accuracy_shipped", runs, SHIPPED),
        difference("news_gap", runs, SHIPPED, "teacher"),
        # Against the same student that has seen no teacher.
        difference("news_gain", runs, "student", "baseline"),
        *costs("news", runs),
        # The budget is of the model file alone; a package also holds the tokenizer, which the teacher needs too.
        mean_of("news_package_ratio", runs, package_ratio),
    ]


BENCHMARK = Benchmark("news", figures)
