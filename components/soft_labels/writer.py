"""Scores every training point with the teacher and leaves the labels in the object store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from pydantic import ValidationError

from components.errors import DataError, IntegrityError, SettingsError
from components.networks.contract import PredictionNetwork
from components.settings.soft_labels import SoftLabelSettings
from components.soft_labels.codec import Codec, codec_for
from components.soft_labels.manifest import CacheIdentity, Manifest, Part, written
from components.soft_labels.parts import part_bytes, part_of
from components.soft_labels.progress import RowProgress
from components.storage.contract import MissingObjectError, ObjectStore
from components.tasks.batch import Batch

MANIFEST_NAME = "manifest.json"
# Windows that the teacher reads at once. Not a setting: another number could change the last bit of a label.
_BATCH_SIZE = 64
# Logits that exist at once, so that memory does not grow with the catalogue.
_LOGITS_AT_ONCE = 1 << 21
_TOLERATED_DIFFERENCE = 2e-6


class ScoringTask(Protocol):
    """What the writer needs of a task."""

    @property
    def outcomes(self) -> int:
        """K."""

    @property
    def points(self) -> int:
        """P, the number of training points."""

    def scoring_batches(self, first: int, stop: int, batch_size: int) -> Iterator[Batch]:
        """The points ``first`` to ``stop - 1`` in ascending order."""


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
) -> Manifest:
    """Write the cache of a teacher on a data set, or what of it is not there yet.

    A part is finished when its record lies beside it; the record is written after the part, and only if there is none,
    so that of several writers one decides which bytes count. A finished part is read back and checked, and scored
    again only if it is damaged or gone: after a kill the work goes on where it stopped, and running once more heals a
    damaged store. The manifest comes last.

    Args:
        store: Where the parts go.
        teacher: Gives logits ``(N, K)``.
        task: Gives the points, 0 to P - 1, in order.
        settings: Codec, and rows a part.
        teacher_digest: Identity of the teacher.
        dataset_digest: Identity of the data set.
        accelerator: ``cpu``, ``gpu`` or ``auto``, as in the ``trainer`` settings.
        show: Whether progress is shown.

    Raises:
        DataError: There are no points.
        SettingsError: There is no such accelerator here.
        TrainingError: The teacher gives logits that are not finite.
        StorageError: The store cannot be read or written.
    """
    if task.points < 1:
        raise DataError("there is no training point to score", "Give a data set with longer histories.")
    codec = codec_for(settings, task.outcomes)
    identity = CacheIdentity(
        teacher=teacher_digest,
        dataset=dataset_digest,
        codec=codec.record(),
        outcomes=task.outcomes,
        rows_per_part=settings.rows_per_part,
    )
    scorer = _Scorer(teacher, task, codec, device_of(accelerator))
    parts = []
    with RowProgress(task.points, "scoring", show) as progress:
        for number, first in enumerate(range(0, task.points, settings.rows_per_part)):
            stop = min(first + settings.rows_per_part, task.points)
            recorded = _recorded_part(store, identity, number, first, stop - first)
            if recorded is not None and _is_sound(store, identity, recorded, codec):
                progress.advance(recorded.rows, reused=True)
                parts.append(recorded)
                continue
            content = scorer.part(first, stop, progress)
            part = part_of(number, first, stop - first, content, codec)
            parts.append(_publish(store, identity, part, content, replace=recorded is not None))
    manifest = Manifest(**identity.model_dump(), id=identity.cache_id, rows=task.points, parts=tuple(parts))
    _publish_manifest(store, manifest)
    return manifest


def device_of(accelerator: str) -> torch.device:
    """The device that Lightning would take for an accelerator.

    Raises:
        SettingsError: There is none of that kind.
    """
    gpu = torch.cuda.is_available()
    if accelerator == "cpu" or (accelerator == "auto" and not gpu):
        return torch.device("cpu")
    if accelerator in ("gpu", "cuda", "auto") and gpu:
        return torch.device("cuda")
    raise SettingsError(
        f"accelerator {accelerator!r} is not available on this machine", "Set `trainer.accelerator` to cpu or auto."
    )


class _Scorer:
    """The teacher on its device."""

    def __init__(self, teacher: PredictionNetwork, task: ScoringTask, codec: Codec, device: torch.device) -> None:
        self._teacher, self._task, self._codec, self._device = teacher.eval().to(device), task, codec, device

    def part(self, first: int, stop: int, progress: RowProgress) -> bytes:
        """The part with the labels of the points ``first`` to ``stop - 1``."""
        pieces = []
        chunk = max(1, _LOGITS_AT_ONCE // self._task.outcomes)
        following = first
        with torch.inference_mode():
            for batch in self._task.scoring_batches(first, stop, _BATCH_SIZE):
                rows = len(batch.points)
                if not torch.equal(batch.points, torch.arange(following, following + rows)):
                    raise IntegrityError(f"the task gave other points than {following} to {following + rows - 1}")
                hidden = self._teacher.encode(*(tensor.to(self._device) for tensor in batch.inputs))
                for start in range(0, rows, chunk):
                    pieces.append(self._codec.encode(self._teacher.score(hidden[start : start + chunk])))
                following += rows
                progress.advance(rows)
        if following != stop:
            raise IntegrityError(f"the task gave points {first} to {following - 1}, not to {stop - 1}")
        return part_bytes({name: np.concatenate([piece[name] for piece in pieces]) for name in self._codec.columns})


def _recorded_part(store: ObjectStore, identity: CacheIdentity, number: int, first: int, rows: int) -> Part | None:
    """What the record of a part says, when there is one."""
    try:
        content = store.get(identity.key(_record_name(number)))
        part = Part.model_validate_json(content)
    except (MissingObjectError, ValidationError):
        return None
    matches = (part.number, part.first, part.rows) == (number, first, rows)
    return part if matches and content == written(part) else None


def _is_sound(store: ObjectStore, identity: CacheIdentity, part: Part, codec: Codec) -> bool:
    """Whether the part's bytes are there, and are in everything what its record says."""
    try:
        content = store.get(identity.key(part.name), part.sha256)
        found = part_of(part.number, part.first, part.rows, content, codec)
    except (IntegrityError, MissingObjectError):
        return False
    # Machines need not agree on the last digit of a mean.
    means = [(found.top_mass, part.top_mass), (found.kept_mass, part.kept_mass)]
    if any(abs(one - other) > _TOLERATED_DIFFERENCE for one, other in means):
        return False
    return part == found.model_copy(update={"top_mass": part.top_mass, "kept_mass": part.kept_mass})


def _publish(store: ObjectStore, identity: CacheIdentity, part: Part, content: bytes, replace: bool) -> Part:
    """Write the part, then its record; when another writer was first with the record, that one counts.

    Args:
        store: Where to.
        identity: Of the cache.
        part: The record.
        content: The part itself.
        replace: Whether there is a record that describes bytes that are no more.
    """
    store.put(identity.key(part.name), content, part.sha256)
    record, key = written(part), identity.key(_record_name(part.number))
    digest = hashlib.sha256(record).hexdigest()
    if not replace:
        if store.put_if_absent(key, record, digest):
            return part
        if other := _recorded_part(store, identity, part.number, part.first, part.rows):
            return other
    store.put(key, record, digest)
    return part


def _publish_manifest(store: ObjectStore, manifest: Manifest) -> None:
    """Write the manifest unless there is one; replace one that is damaged or names other bytes than there now are."""
    content, key = written(manifest), manifest.key(MANIFEST_NAME)
    digest = hashlib.sha256(content).hexdigest()
    if not store.put_if_absent(key, content, digest) and store.get(key) != content:
        store.put(key, content, digest)


def _record_name(number: int) -> str:
    return f"part-{number:05d}.json"
