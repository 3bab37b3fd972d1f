"""The measures of the soft-label cache on ML-1M and Beauty: ``make bench-soft-labels``, with ``QUICK=1`` in minutes.

Teachers, caches and students are kept below ``.recstill/benchmarks/soft-labels``: a run that was interrupted goes on,
and a second one measures speed and memory only. ``DATA=ml-1m`` takes one data set alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from components.settings.threads import threads_per_network
from tests.benchmarks.soft_labels.gradients import MANY_POINTS, angles
from tests.benchmarks.soft_labels.memory import growth
from tests.benchmarks.soft_labels.quality import (
    CACHED,
    VARIANTS,
    Renormalised,
    WholeDistribution,
    cache,
    gaps,
    student_folder,
    trained_student,
)
from tests.benchmarks.soft_labels.recipe import FILES, QUICK, ROOT, SEEDS, Bench, opened
from tests.benchmarks.soft_labels.speed import larger_teacher, scoring_ratio, step_ratios
from tests.benchmarks.soft_labels.workers import dask_speedup

AT_ONCE = len(os.sched_getaffinity(0))


def train_students(bench: Bench) -> None:
    """Every student that is not there yet, as many at once as there are cores."""
    # Made once, before processes that run side by side would each make them.
    cache(bench, CACHED)
    cache(bench, "top_k_tail")
    WholeDistribution(bench)
    missing = [
        (variant, seed) for seed in SEEDS for variant in VARIANTS if not student_folder(bench, variant, seed).is_dir()
    ]
    started, done = time.monotonic(), 0

    def train(variant: str, seed: int) -> None:
        nonlocal done
        command = [sys.executable, "-m", "tests.benchmarks.soft_labels.quality", bench.name, variant, str(seed)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads_per_network())}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        done += 1
        left = (time.monotonic() - started) / done * (len(missing) - done)
        print(f"{bench.name}: student {done} of {len(missing)} ({variant}, seed {seed}), {left:.0f} s left", flush=True)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for future in [pool.submit(train, *one) for one in missing]:
            future.result()


def quality(bench: Bench) -> dict[str, float]:
    """Bytes, gap and angles of one data set; a table of all variants is printed."""
    train_students(bench)
    means, lost = gaps(bench)
    tail = cache(bench, "top_k_tail")
    ways = {CACHED: cache(bench), "top_k_tail": tail, "top_k_renormalised": Renormalised(tail)}
    found = angles(bench, trained_student(bench, "full", SEEDS[0]), WholeDistribution(bench), ways)
    print(
        f"\n{bench.name}, {len(SEEDS)} seeds: NDCG@10, share lost of `full` [95 %], "
        f"degrees off over a step, over {MANY_POINTS:,} points"
    )
    for variant in VARIANTS:
        share = "" if variant == "full" else "{:+.2%} [{:+.2%}, {:+.2%}]".format(*lost[variant])
        degrees = "  {:.1f}  {:.1f}".format(*found[variant]) if variant in found else ""
        print(f"  {variant:<20} {means[variant]:.4f}  {share}{degrees}")
    manifest = cache(bench).manifest
    figures = {
        "bytes_per_position": manifest.bytes / manifest.rows,
        "ndcg_gap_to_full": lost[CACHED][0],
        "ndcg_gap_to_full_high": lost[CACHED][2],
        "renormalised_gap_to_full": lost["top_k_renormalised"][0],
        "gradient_angle_deg": found[CACHED][1],
        "gradient_angle_of_a_step_deg": found[CACHED][0],
        "renormalised_angle_deg": found["top_k_renormalised"][1],
    }
    for name, value in figures.items():
        print(f"{bench.name}.{name}={value:.4f}")
    return figures


def main() -> None:
    names = [os.environ["DATA"]] if os.environ.get("DATA") else list(FILES)
    for name in names:
        if not FILES[name].is_file():
            raise SystemExit(f"error: {FILES[name]} is missing; name the folder of the data sets in BENCH_DATA")
    benches = [opened(name) for name in names]
    found = [quality(bench) for bench in benches]
    # The worst of the data sets is what counts.
    figures = {name: max(one[name] for one in found) for name in found[0]}
    print("\nmeasuring speed", flush=True)
    figures |= step_ratios(benches[0])
    figures |= scoring_ratio(benches[0])
    figures["scoring_ratio_larger_teacher"] = scoring_ratio(larger_teacher(benches[0]))["scoring_ratio"]
    figures |= dask_speedup(benches[0])
    figures |= growth()
    print(f"\nlabels=16 codec={CACHED} seeds={len(SEEDS)} quick={int(QUICK)} data={'+'.join(names)}")
    for name, value in figures.items():
        print(f"{name}={value:.4f}")


if __name__ == "__main__":
    main()
