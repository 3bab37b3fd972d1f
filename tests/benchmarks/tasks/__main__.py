"""Every task's scenario from its source to its package, three seeds, in clones of this checkout: ``make bench-tasks``.

``ONLY=binary,digits`` takes some of them, ``SEEDS=0`` one seed, ``CLONES=folder`` keeps the clones there. Quality is
the mean over the seeds with a 95 % interval by bootstrap over the test points; what is compared is compared on the same
points. Costs have the least and the greatest of the seeds beside their mean.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext
from pathlib import Path

from tests.benchmarks.tasks import behaviour, binary, digits, news, shop_and_feed
from tests.benchmarks.tasks.runs import Figure, run_scenario

BENCHMARKS = {
    one.scenario: one
    for one in (*(module.BENCHMARK for module in (binary, digits, behaviour, news)), *shop_and_feed.BENCHMARKS)
}
SEEDS = tuple(int(seed) for seed in os.environ.get("SEEDS", "0,1,2").split(","))


def main() -> None:
    only = [name for name in os.environ.get("ONLY", "").split(",") if name]
    if unknown := sorted({*only} - {*BENCHMARKS}):
        raise SystemExit(f"ONLY: there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    kept = os.environ.get("CLONES")
    found: list[Figure] = []
    for scenario in only or BENCHMARKS:
        with nullcontext(kept) if kept else tempfile.TemporaryDirectory(prefix="recstill-bench-") as folder:
            runs = [run_scenario(BENCHMARKS[scenario], seed, Path(folder)) for seed in SEEDS]
            measured = BENCHMARKS[scenario].figures(runs)
        print(f"\n{scenario}, seeds {', '.join(map(str, SEEDS))}", *(one.told() for one in measured), sep="\n")
        found += measured
    print("", *found, sep="\n")


if __name__ == "__main__":
    main()
