"""A cache that workers of other processes and machines score: what they are told, and what they do with it.

A job lies in the object store, since that is what all workers have in common. What travels to a worker is a ticket: the
store's address and the job's key and digest. Credentials are never in either: each worker has its own environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import uuid
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from components.errors import IntegrityError, RecstillError, StorageError
from components.settings.soft_labels import SoftLabelSettings
from components.soft_labels.calibration import UNCHANGED, calibrated
from components.soft_labels.inputs import (
    InputFile,
    Inputs,
    fetch_inputs,
    find_inputs,
    read_inputs,
    send_inputs,
)
from components.soft_labels.manifest import CacheIdentity, Part, written
from components.soft_labels.scoring import Advance, CachePlan, Scorer, device_of, finish_part
from components.storage.contract import MissingObjectError, ObjectStore
from components.storage.object_store import STORE_VARIABLE, open_store

_JOB = "job.json"
# Below a cache's key; one folder a job, so that of two jobs for one cache none takes the other's files away.
_INPUTS = "inputs"


class Ticket(NamedTuple):
    """Where a worker finds its job.

    Attributes:
        store: Address of the object store.
        folder: Key of the job's folder in it.
        sha256: Digest of the job.
    """

    store: str
    folder: str
    sha256: str


class LabellingJob(BaseModel):
    """Which cache is written, and where its inputs are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    identity: CacheIdentity
    rows: int
    """P."""
    task: str
    settings: SoftLabelSettings
    accelerator: str
    dataset_folder: str
    """On the machine that gave the job, and on any that shares its files."""
    teacher_folder: str
    inputs: tuple[InputFile, ...]
    """The same in the store, beside the job; none when all workers are on the machine that gave it."""

    @property
    def plan(self) -> CachePlan:
        """The cache, and how its rows fall into parts."""
        return CachePlan(self.identity, self.rows)


class PostedJob:
    """A job in the store. Whoever posted it removes it.

    Args:
        store: Where it is.
        ticket: For the workers.
        plan: The cache.
    """

    def __init__(self, store: ObjectStore, ticket: Ticket, plan: CachePlan) -> None:
        self.ticket, self.plan = ticket, plan
        self._store = store

    def remove(self) -> None:
        """Take the job and the inputs that came with it out of the store.

        Raises:
            StorageError: The store cannot be written.
        """
        for entry in list(self._store.list(f"{self.ticket.folder}/")):
            self._store.delete(entry.key)


def post_job(
    store: ObjectStore,
    dataset_folder: Path,
    teacher_folder: Path,
    *,
    task: str,
    settings: SoftLabelSettings,
    accelerator: str,
    elsewhere: bool,
) -> PostedJob:
    """Put a job into the store.

    Args:
        store: Where to, and where the cache will be.
        dataset_folder: What ``prepare`` wrote.
        teacher_folder: What ``train_teacher`` wrote.
        task: As ``task`` in params.yaml.
        settings: What is kept.
        accelerator: As in the ``trainer`` settings.
        elsewhere: Whether workers may be on other machines; the inputs are then put into the store too.

    Raises:
        DataError: An input is missing, or there is no point to score, or none to calibrate on.
        IntegrityError: An input is damaged.
        StorageError: The store cannot be written.
    """
    found = read_inputs(dataset_folder, teacher_folder, task)
    calibration = calibrated(found.teacher, found.task) if settings.calibrate else UNCHANGED
    scorer = Scorer(found.teacher, found.task, settings, temperature=calibration.temperature, shift=calibration.shift)
    plan = scorer.plan(found.teacher_digest, found.dataset_digest)
    folder = plan.identity.key(f"{_INPUTS}/{uuid.uuid4().hex}")
    posted = PostedJob(store, Ticket(store.address, folder, ""), plan)
    try:
        job = LabellingJob(
            identity=plan.identity,
            rows=plan.rows,
            task=task,
            settings=settings,
            accelerator=accelerator,
            dataset_folder=str(dataset_folder.resolve()),
            teacher_folder=str(teacher_folder.resolve()),
            inputs=send_inputs(store, folder, dataset_folder, teacher_folder) if elsewhere else (),
        )
        content = written(job)
        digest = hashlib.sha256(content).hexdigest()
        store.put(f"{folder}/{_JOB}", content, digest)
    except BaseException:
        # The first error is the one to tell.
        with contextlib.suppress(RecstillError):
            posted.remove()
        raise
    posted.ticket = posted.ticket._replace(sha256=digest)
    return posted


def finish_part_of_job(ticket: Ticket, number: int, advance: Advance) -> Part:
    """What a worker does: see that a part of the job's cache is in the store, whole and recorded.

    The teacher and the data set are read once a process, from their folders if this machine has them, else from the
    store.

    Args:
        ticket: Where the job is.
        number: The part, from 0.
        advance: Told of rows that are done.

    Raises:
        RecstillError: As :func:`~components.soft_labels.scoring.finish_part`; and a StorageError when this worker does
            not see the store.
    """
    with _READING:
        if ticket not in _READ:
            _READ.clear()
            _READ[ticket] = _Work(ticket)
        work = _READ[ticket]
    return finish_part(work.store, work.plan, number, work.scorer, advance)


class _Work:
    """A job that this process has begun: an open store, and a teacher in memory."""

    def __init__(self, ticket: Ticket) -> None:
        # A store may have another path or endpoint on this machine: its own environment goes first.
        self.store = open_store(os.environ.get(STORE_VARIABLE) or ticket.store)
        job = _job(self.store, ticket)
        self.plan = job.plan
        inputs = _inputs(self.store, ticket, job)
        self.scorer = Scorer(
            inputs.teacher,
            inputs.task,
            job.settings,
            device_of(job.accelerator),
            temperature=job.identity.teacher_temperature,
            shift=job.identity.teacher_shift,
        )
        if self.scorer.plan(inputs.teacher_digest, inputs.dataset_digest) != job.plan:
            raise IntegrityError(
                f"the inputs of {job.identity.cache_id[:12]} on {socket.gethostname()} lead to another cache",
                "Install the same version of Recstill on every worker.",
            )


_READ: dict[Ticket, _Work] = {}
_READING = threading.Lock()


def _job(store: ObjectStore, ticket: Ticket) -> LabellingJob:
    try:
        return LabellingJob.model_validate_json(store.get(f"{ticket.folder}/{_JOB}", ticket.sha256))
    except MissingObjectError:
        raise StorageError(
            f"the worker on {socket.gethostname()} does not see the store {ticket.store}: it finds no job in "
            f"{store.address}",
            f"Set {STORE_VARIABLE} to an s3:// address that this machine and every worker reach.",
        ) from None
    except ValidationError:
        raise IntegrityError(
            f"the worker on {socket.gethostname()} does not understand the job",
            "Install the same version of Recstill on every worker.",
        ) from None


def _inputs(store: ObjectStore, ticket: Ticket, job: LabellingJob) -> Inputs:
    folders = (Path(job.dataset_folder), Path(job.teacher_folder))
    if found := find_inputs(folders, job.task, job.identity.teacher, job.identity.dataset):
        return found
    if not job.inputs:
        # Says what is the matter with them.
        return read_inputs(*folders, job.task)
    return fetch_inputs(store, ticket.folder, job.inputs, job.task)
