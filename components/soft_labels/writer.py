"""Scores every training point with the teacher, several parts at once, and leaves the labels in the object store."""

from __future__ import annotations

import threading
import time
from queue import Empty, SimpleQueue

import torch

from components.errors import StorageError
from components.networks.contract import PredictionNetwork
from components.settings.soft_labels import SoftLabelSettings
from components.settings.threads import scoring_workers
from components.soft_labels.calibration import Calibration
from components.soft_labels.inputs import Inputs
from components.soft_labels.manifest import Manifest, Part
from components.soft_labels.progress import RowProgress
from components.soft_labels.publishing import missing_parts, publish_manifest
from components.soft_labels.scoring import CachePlan, Scorer, ScoringTask, device_of, finish_part
from components.storage.contract import ObjectStore

# A worker that is told to stop ends after the batch or the request that it is at; a hung request is not waited for.
_PATIENCE_SECONDS = 10.0
# While old parts are taken over, somebody who cleans up may delete them: they are counted again before the manifest.
_ATTEMPTS = 3
_SECONDS_BETWEEN_LOOKS = 0.2


def write_cache(
    store: ObjectStore,
    teacher: PredictionNetwork,
    task: ScoringTask,
    settings: SoftLabelSettings,
    *,
    teacher_digest: str,
    dataset_digest: str,
    accelerator: str = "cpu",
    show: bool = True,
    workers: int | None = None,
    temperature: float = 1.0,
    shift: float = 0.0,
) -> Manifest:
    """Write the cache of a teacher on a data set, or what of it is not there yet.

    Parts that are finished are checked and kept (see :func:`~components.soft_labels.scoring.finish_part`): after a
    kill the work goes on where it stopped, and running once more heals a damaged store. The manifest comes last, by a
    conditional put. At most ``workers`` parts are in memory at a time, and of a finished one its record alone.

    Args:
        store: Where the parts go.
        teacher: Gives logits ``(N, K)``.
        task: Gives the points, 0 to P - 1, in order.
        settings: Codec, and rows a part.
        teacher_digest: Identity of the teacher.
        dataset_digest: Identity of the data set.
        accelerator: ``cpu``, ``gpu`` or ``auto``, as in the ``trainer`` settings.
        show: Whether progress is shown.
        workers: Parts that are scored at once, each by one thread; their number changes no byte. Without it what
            ``RECSTILL_WORKERS`` says, else as many as there are cores; one on a GPU.
        temperature: By what the teacher's logits are divided, see :mod:`components.soft_labels.calibration`.
        shift: What is added to them then, where there is one outcome.

    Raises:
        DataError: There are no points.
        SettingsError: There is no such accelerator here, or the codec is not for so many outcomes.
        TrainingError: The teacher gives logits that are not finite.
        StorageError: The store cannot be read or written.
    """
    device = device_of(accelerator)
    scorer = Scorer(teacher, task, settings, device, temperature=temperature, shift=shift)
    plan = scorer.plan(teacher_digest, dataset_digest)
    # One thread keeps a GPU busy.
    workers = workers or scoring_workers(default=None if device.type == "cpu" else 1)
    identity = plan.identity
    for attempt in range(_ATTEMPTS):
        with RowProgress(plan.rows, "scoring", show and attempt == 0) as progress:
            parts = _Crew(store, plan, scorer, progress).finish(workers)
        if not missing_parts(store, identity, parts):
            break
    else:
        raise StorageError(
            f"parts of {identity.cache_id[:12]} are deleted from {store.address} while they are written",
            "Let no `recstill store gc` or `soft-labels remove` run meanwhile, and run again.",
        )
    manifest = Manifest(**identity.model_dump(), id=identity.cache_id, rows=plan.rows, parts=tuple(parts))
    publish_manifest(store, manifest)
    return manifest


def write_labels(
    store: ObjectStore,
    inputs: Inputs,
    settings: SoftLabelSettings,
    calibration: Calibration,
    accelerator: str,
    *,
    workers: int | None = None,
) -> Manifest:
    """:func:`write_cache` of a teacher and a data set that were read together.

    Args:
        store, settings, accelerator, workers: See there.
        inputs: Both, and their identities.
        calibration: Of the teacher.
    """
    return write_cache(
        store,
        inputs.teacher,
        inputs.task,
        settings,
        teacher_digest=inputs.teacher_digest,
        dataset_digest=inputs.dataset_digest,
        accelerator=accelerator,
        workers=workers,
        temperature=calibration.temperature,
        shift=calibration.shift,
    )


class _Stopped(BaseException):
    """What ends a worker's part when another worker has failed."""


class _Crew:
    """Threads that finish one part after the other until there are no more, or one of them fails."""

    def __init__(self, store: ObjectStore, plan: CachePlan, scorer: Scorer, progress: RowProgress) -> None:
        self._store, self._plan, self._scorer, self._progress = store, plan, scorer, progress
        self._numbers = iter(range(plan.parts))
        self._taking = threading.Lock()
        self._stop = threading.Event()
        self._ended: SimpleQueue[tuple[int, Part] | BaseException] = SimpleQueue()

    def finish(self, workers: int) -> list[Part]:
        """All parts in order; the first error of a worker, or Ctrl-C, stops the others."""
        # While workers compute, the number of torch's threads is theirs to say, and partly the process's.
        previous = torch.get_num_threads()
        # An interpreter that ends does not wait for a daemon: nothing can hold up the end after Ctrl-C.
        threads = [threading.Thread(target=self._work, daemon=True) for _ in range(min(workers, self._plan.parts))]
        parts: dict[int, Part] = {}
        try:
            for thread in threads:
                thread.start()
            while len(parts) < self._plan.parts:
                try:
                    # A wait without an end may miss Ctrl-C.
                    ended = self._ended.get(timeout=_SECONDS_BETWEEN_LOOKS)
                except Empty:
                    continue
                if isinstance(ended, BaseException):
                    raise ended
                parts[ended[0]] = ended[1]
        finally:
            self._stop.set()
            deadline = time.monotonic() + _PATIENCE_SECONDS
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            torch.set_num_threads(previous)
        return [parts[number] for number in range(self._plan.parts)]

    def _work(self) -> None:
        try:
            while (number := self._next()) is not None:
                part = finish_part(self._store, self._plan, number, self._scorer, self._advance)
                self._ended.put((number, part))
        except _Stopped:
            return
        except BaseException as error:  # raised again where the caller waits
            self._ended.put(error)

    def _next(self) -> int | None:
        with self._taking:
            return None if self._stop.is_set() else next(self._numbers, None)

    def _advance(self, rows: int, reused: bool) -> None:
        if self._stop.is_set():
            raise _Stopped
        self._progress.advance(rows, reused)
