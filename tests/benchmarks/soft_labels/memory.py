"""Peak memory of reader and writer at two sizes of a cache, each in a process of its own.

``python -m tests.benchmarks.soft_labels.memory read|write FOLDER ROWS`` prints the growth in MiB of the resident
memory, file pages included, from before the first label to the peak.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from components.networks.contract import PredictionNetwork
from components.settings.soft_labels import SoftLabelSettings
from components.soft_labels.manifest import read_manifest, written
from components.soft_labels.reader import SoftLabelReader
from components.soft_labels.writer import write_cache
from components.storage.folder_store import FolderStore
from components.tasks.batch import Batch
from tests.benchmarks.soft_labels.recipe import ROOT

ROWS = (1_000_000, 4_000_000)
_OUTCOMES = 300
_SETTINGS = SoftLabelSettings(codec="top_k_tail", k=16, rows_per_part=65_536)
_RESIDENT = 64 << 20


class _Task:
    outcomes = _OUTCOMES

    def __init__(self, points: int) -> None:
        self.points = points

    def scoring_batches(self, first: int, stop: int, batch_size: int) -> Iterator[Batch]:
        for start in range(first, stop, 4096):
            points = torch.arange(start, min(start + 4096, stop))
            yield Batch(inputs=(points,), targets=points % _OUTCOMES, points=points, step_points=len(points))


class _Teacher(PredictionNetwork):
    """Logits that need hardly any time, so that many rows can be written."""

    outcomes = _OUTCOMES

    def record(self) -> dict[str, Any]:
        return {}

    def encode(self, *inputs: Any, **named: Any) -> torch.Tensor:
        return torch.sin(inputs[0].unsqueeze(1) * torch.arange(1, _OUTCOMES + 1).float())

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden


def growth() -> dict[str, float]:
    """How many MiB more the larger of two caches takes than the smaller, at the peak."""
    peaks: dict[str, list[float]] = {"read": [], "write": []}
    with tempfile.TemporaryDirectory() as folder:
        for rows in ROWS:
            for what in ("write", "read"):
                command = [sys.executable, "-m", "tests.benchmarks.soft_labels.memory", what, folder, str(rows)]
                done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
                peaks[what].append(float(done.stdout.split()[-1]))
    size = _SETTINGS.k * 4 + 2
    print(f"caches of {[round(rows * size / 2**20) for rows in ROWS]} MiB: peaks in MiB {peaks}", flush=True)
    return {
        "reader_memory_growth": peaks["read"][1] - peaks["read"][0],
        "writer_memory_growth": peaks["write"][1] - peaks["write"][0],
    }


def _write(folder: Path, rows: int) -> None:
    manifest = write_cache(
        FolderStore(folder / "store"),
        _Teacher(),
        _Task(rows),
        _SETTINGS,
        teacher_digest="1" * 64,
        dataset_digest=f"{rows:064x}",
        show=False,
        workers=2,
    )
    (folder / f"{rows}.json").write_bytes(written(manifest))


def _read(folder: Path, rows: int) -> None:
    manifest = read_manifest((folder / f"{rows}.json").read_bytes(), "manifest")
    reader = SoftLabelReader(FolderStore(folder / "store"), manifest, folder / "disk", resident_bytes=_RESIDENT)
    generator = torch.Generator().manual_seed(0)
    for _ in range(500):
        reader.labels(torch.randint(rows, (3000,), generator=generator))


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    what, folder, rows = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    before = peak = _resident_mib()
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.is_set():
            peak = max(peak, _resident_mib())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    (_write if what == "write" else _read)(folder, rows)
    ended.set()
    watcher.join()
    print(peak - before)


if __name__ == "__main__":
    main()
