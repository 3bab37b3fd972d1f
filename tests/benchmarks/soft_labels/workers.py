"""One and two Dask workers on the same cache: how much faster two are, and whether every byte is the same."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from components.soft_labels.job import post_job
from components.storage.digests import file_digest
from components.storage.folder_store import FolderStore
from flows.running import prefer_quiet_prefect
from tests.benchmarks.soft_labels.quality import CACHED
from tests.benchmarks.soft_labels.recipe import Bench, soft_labels


def dask_speedup(bench: Bench) -> dict[str, float]:
    """Wall time of one worker over that of two, from the first part to the last, with the reading of the teacher."""
    prefer_quiet_prefect()
    from flows.dask_scoring import local_workers, score

    seconds, contents = [], []
    for number in (1, 2):
        folder = bench.folder / f"dask-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        job = post_job(
            FolderStore(folder),
            bench.folder / "dataset",
            bench.folder / "teacher",
            task="next_item",
            settings=soft_labels(CACHED).model_copy(update={"rows_per_part": 32_768}),
            accelerator="cpu",
            elsewhere=False,
        )
        with local_workers(number) as crew:
            started = time.monotonic()
            state = score(bench.name, list(job.ticket), job.plan.parts, crew)
            seconds.append(time.monotonic() - started)
        if not state.is_completed():
            raise SystemExit(f"scoring with {number} workers failed: {state.message}")
        job.remove()
        contents.append(_content(folder))
        shutil.rmtree(folder)
        print(f"{number} Dask workers: {job.plan.rows / seconds[-1]:,.0f} rows/s", flush=True)
    if contents[0] != contents[1]:
        raise SystemExit("two workers wrote other bytes than one")
    return {"dask_speedup": seconds[0] / seconds[1]}


def _content(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): file_digest(path) for path in files}
