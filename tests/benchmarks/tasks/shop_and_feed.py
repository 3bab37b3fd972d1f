"""``shop``, whose file has to lie in the folder of downloads where its address fails, ``social`` and ``interest``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.benchmarks.tasks.runs import SHIPPED, Benchmark, Figure, Run, costs, difference, level


def _figures(name: str, measure: str) -> Callable[[Sequence[Run]], list[Figure]]:
    def figures(runs: Sequence[Run]) -> list[Figure]:
        return [
            level(f"{name}_{measure}_teacher", runs, "teacher"),
            level(f"{name}_{measure}_shipped", runs, SHIPPED),
            difference(f"{name}_gap", runs, SHIPPED, "teacher"),
            # Against the same student that has seen no teacher.
            difference(f"{name}_gain", runs, "student", "baseline"),
            *costs(name, runs),
        ]

    return figures


BENCHMARKS = tuple(
    Benchmark(name, _figures(name, measure))
    for name, measure in (("shop", "ndcg"), ("social", "ndcg"), ("interest", "auc"))
)
