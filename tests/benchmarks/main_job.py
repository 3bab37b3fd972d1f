"""The measures of the main job, on MovieLens-100K, in clones of this checkout: ``make bench-main-job``.

Three seeds, each in its own clone: the first gives the times of a first run, of a second one at once after it, and of
a run after one quantization parameter was changed. Figures of quality are means over the seeds. With ML-1M at hand
(``ML1M``, by default ``../shared/data/ml-1m/ml-1m.txt.gz``) one epoch of training on it is measured too.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SEEDS = (0, 1, 2)
ML1M = Path(os.environ.get("ML1M", ROOT.parent / "shared/data/ml-1m/ml-1m.txt.gz"))


def clone(folder: Path) -> Path:
    root = folder / "recstill"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(root)], check=True)
    return root


def recstill(root: Path, *arguments: str) -> tuple[float, str]:
    """Wall seconds and output of a command that has to end well."""
    started = time.monotonic()
    command = [str(BIN / "recstill"), *arguments]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed\n{done.stdout}")
    return time.monotonic() - started, done.stdout


def stage_overhead(root: Path) -> float:
    """Seconds a stage that the flow adds: the wall time from the first stage on in which no stage's process ran."""
    record = json.loads((root / ".recstill/runs/movielens.json").read_text())
    stages = [stage for stage in record["stages"] if stage["outcome"] == "ran"]
    # DVC saves outputs after the process has ended, so that its own time lies at the start of what the flow measured.
    spans = sorted((stage["started"], stage["started"] + stage["own_seconds"]) for stage in stages)
    covered, reached = 0.0, spans[0][0]
    for start, end in spans:
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return (record["ended"] - spans[0][0] - covered) / len(stages)


def quality(root: Path) -> dict[str, float]:
    artifacts = root / "artifacts/movielens"
    metrics: dict[str, Any] = json.loads((artifacts / "report/metrics.json").read_text())
    member_bytes = metrics["shipped_bytes"] / metrics["shipped_bytes_ratio"]
    return {
        "teacher_ndcg10": metrics["teacher_ndcg10"],
        "shipped_ndcg10": metrics["shipped_ndcg10"],
        "shipped_retention": metrics["shipped_retention"],
        # What ships against the same student trained without a teacher.
        "student_gain": metrics["shipped_ndcg10"] - metrics["baseline_ndcg10"],
        "shipped_bytes_ratio": (artifacts / "package/model.onnx").stat().st_size / member_bytes,
        "shipped_latency_ratio": metrics["shipped_latency_ratio"],
    }


def ml1m_epoch() -> float:
    """CPU seconds of one epoch, one thread, on ML-1M: length 200, d=64, 2 blocks, every interaction."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RECSTILL_THREADS": "1"}
    command = [sys.executable, "-m", "tests.benchmarks.training_epoch", str(ML1M)]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout, flush=True)
    return float(re.search(r"^epoch_cpu_s=(.+)$", done.stdout, re.MULTILINE).group(1))


def main() -> None:
    figures: dict[str, float] = {}
    rows = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory(prefix="recstill-bench-") as folder:
            root = clone(Path(folder))
            assignments = [] if seed == 0 else ["--set", f"scenarios.movielens.seed={seed}"]
            seconds, printed = recstill(root, "run", "movielens", *assignments)
            print(printed, flush=True)
            rows.append(quality(root))
            print(f"seed {seed}: {seconds:.0f} s, {rows[-1]}", flush=True)
            if seed == SEEDS[0]:
                figures["first_run_s"] = seconds
                figures["stage_overhead_s"] = stage_overhead(root)
                figures["second_run_s"], _ = recstill(root, "run", "movielens")
                change = "scenarios.movielens.quantization.kmeans_levels=128"
                figures["requantize_s"], printed = recstill(root, "run", "movielens", "--set", change)
                ran = re.findall(r"^✓ (\w+)@movielens", printed, re.MULTILINE)
                assert ran == ["quantize", "evaluate", "package"], ran
    for name in rows[0]:
        figures[name] = statistics.mean(row[name] for row in rows)
    if ML1M.is_file():
        figures["ml1m_epoch_cpu_s"] = ml1m_epoch()
    else:
        print(f"ml1m_epoch_cpu_s is not measured: there is no {ML1M}; name the file by ML1M=")
    for name, value in figures.items():
        print(f"{name}={value:.4f}")


if __name__ == "__main__":
    main()
