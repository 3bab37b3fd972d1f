"""The soft labels of a scenario, scored by as many workers as there are: here, in local processes, or on a cluster.

However it is scored, the last word is DVC's: the stage runs, finds every part finished, checks it and writes the
manifest. So there is one record of what was made, and no second way to make it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import RecstillError
from components.soft_labels.inventory import read_cache
from components.soft_labels.manifest import read_manifest
from components.stages.labelling_job import STAGE, post_stage
from components.stages.workspace import Workspace
from components.storage.object_store import open_store
from flows.graph import Stage, pending, scenario_stages
from flows.running import prefer_quiet_prefect, run_flow, run_stages

if TYPE_CHECKING:
    from components.soft_labels.job import PostedJob
    from flows.dask_scoring import Workers


_REMOVING_SECONDS = 5.0


@dataclass(frozen=True)
class Built:
    """A cache that is complete.

    Attributes:
        cache_id: SHA-256 over what it is of.
        rows: Prediction points.
        parts: Objects that hold them.
        bytes: Of all parts.
        outcome: ``ran``; ``cached``: it was up to date.
    """

    cache_id: str
    rows: int
    parts: int
    bytes: int
    outcome: str

    def __str__(self) -> str:
        size = f"{self.bytes / 2**20:.1f} MiB, {self.bytes / self.rows:.0f} bytes a point"
        return f"{self.outcome}: {self.rows:,} points in {self.parts} parts, {size}; cache {self.cache_id}"


def build(
    root: Path, scenario: str, *, workers: int | None = None, dask: str | None = None, force: bool = False
) -> Built:
    """Bring the soft labels of a scenario up to date, after all that they are made from.

    Args:
        root: The checkout, which has to be the current folder.
        scenario: A scenario of params.yaml.
        workers: Local processes to score with; None: threads of the stage's own process.
        dask: Address of a Dask scheduler whose workers score, such as ``tcp://host:8786``.
        force: Check and complete the cache even when nothing has changed.

    Raises:
        RecstillError: There is no such scenario, or it is a pair of them; a stage fails, the scheduler does not answer,
            or a worker cannot do its work.
    """
    if workers is not None and dask is not None:
        raise RecstillError("--workers and --dask exclude each other", "A cluster has as many workers as it has.")
    if workers is not None and workers < 1:
        raise RecstillError(f"{workers} workers cannot score anything", "Give --workers a number from 1.")
    stages = scenario_stages(root, scenario)
    own = next((stage for stage in stages if stage.address == f"{STAGE}@{scenario}"), None)
    if own is None:
        two = " and ".join(sorted({stage.scenario for stage in stages} - {scenario}))
        raise RecstillError(
            f"{scenario!r} has no soft labels of its own: it answers with {two}", "Name one of the two."
        )
    before = _upstream(own, stages)
    waiting = pending(root, [*before, own])
    if outdated := [stage for stage in before if stage.address in waiting]:
        run_stages(root, scenario, outdated, force=False)
    if not force and not outdated and own.address not in waiting:
        built = _built(root, scenario, "cached")
        if _is_in_store(built):
            return built
        # DVC knows of the manifest, not of the store: this is another one, or the cache was removed from it.
        force = True
    if workers is not None or dask is not None:
        _score_on_dask(root, scenario, workers, dask)
    result = run_stages(root, scenario, [own], force)[own.address]
    built = _built(root, scenario, result.outcome)
    if result.outcome != "ran" and not _is_in_store(built):
        # DVC had the manifest from an earlier run.
        run_stages(root, scenario, [own], force=True)
        built = _built(root, scenario, "ran")
    return built


def _upstream(own: Stage, stages: list[Stage]) -> list[Stage]:
    """All stages that lead to one, in order."""
    wanted = {own.address}
    for stage in reversed(stages):
        if stage.address in wanted:
            wanted.update(stage.upstream)
    return [stage for stage in stages if stage.address in wanted and stage is not own]


def _score_on_dask(root: Path, scenario: str, workers: int | None, dask: str | None) -> None:
    prefer_quiet_prefect()
    from components.soft_labels.progress import RowProgress
    from flows.dask_scoring import local_workers, score, told_to, workers_at

    with workers_at(dask) if dask is not None else local_workers(workers or 1) as crew:
        job = post_stage(Workspace(scenario, root), elsewhere=crew.elsewhere)
        try:
            with RowProgress(job.plan.rows, "scoring") as progress, told_to(progress.advance, crew, job.ticket):
                run_flow(
                    lambda: score(scenario, list(job.ticket), job.plan.parts, crew), scenario, first=_end_of(job, crew)
                )
        finally:
            _remove(job)


def _end_of(job: PostedJob, crew: Workers) -> Callable[[], None]:
    """What a Ctrl-C does first: local workers have nothing to save, and the job is nobody's any more."""

    def end() -> None:
        crew.end()
        # A store that does not answer must not hold up the end.
        removing = threading.Thread(target=_remove, args=(job,), daemon=True)
        removing.start()
        removing.join(_REMOVING_SECONDS)

    return end


def _remove(job: PostedJob) -> None:
    """Take the job out of the store; what cannot be taken is left to `recstill store gc`."""
    with contextlib.suppress(RecstillError):
        job.remove()


def _is_in_store(built: Built) -> bool:
    found = read_cache(open_store(), built.cache_id)
    return found is not None and found.state == "complete"


def _built(root: Path, scenario: str, outcome: str) -> Built:
    path = Workspace(scenario, root).artifacts / "soft_labels/manifest.json"
    manifest = read_manifest(path.read_bytes(), str(path))
    return Built(manifest.id, manifest.rows, len(manifest.parts), manifest.bytes, outcome)
