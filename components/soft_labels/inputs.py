"""What labels are made from, the prepared data set and the teacher: read where they lie, or brought from the store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from components.data.dataset import RECORD_FILE, SPLITS
from components.errors import DataError, IntegrityError, RecstillError
from components.networks.contract import PredictionNetwork
from components.networks.ensemble import TEACHER_FILE, member_folders, read_teacher, teacher_digest
from components.storage.checkpoints import ARCHITECTURE_FILE, WEIGHTS_FILE
from components.storage.contract import ObjectStore
from components.storage.digests import file_digest
from components.tasks.building import open_task
from components.tasks.contract import Task


class Inputs(NamedTuple):
    """A teacher and the points that it scores.

    Attributes:
        teacher: Gives the logits.
        task: Gives the points.
        teacher_digest: Identity of the teacher.
        dataset_digest: Identity of the data set.
    """

    teacher: PredictionNetwork
    task: Task
    teacher_digest: str
    dataset_digest: str


class InputFile(BaseModel):
    """A file that was put into the store for workers on other machines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^(dataset|teacher)(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$")
    """Path below the folder that holds both."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def read_inputs(dataset_folder: Path, teacher_folder: Path, task: str) -> Inputs:
    """Read both, each checked against its own record.

    Args:
        dataset_folder: What ``prepare`` wrote.
        teacher_folder: What ``train_teacher`` wrote.
        task: As ``task`` in params.yaml.

    Raises:
        DataError: A file is missing.
        IntegrityError: A file is damaged.
        SettingsError: There is no such task.
    """
    # Before the weights are read: were they replaced meanwhile, labels would bear another teacher's name only then.
    digest = teacher_digest(teacher_folder)
    teacher = read_teacher(teacher_folder)
    if teacher_digest(teacher_folder) != digest:
        raise IntegrityError(f"{teacher_folder} changed while it was read", "Run again.")
    found = open_task(task, dataset_folder, teacher.max_length)
    return Inputs(teacher, found, digest, found.dataset.digest)


def find_inputs(folders: Sequence[Path], task: str, teacher: str, dataset: str) -> Inputs | None:
    """What lies in the data set's and the teacher's folder, if it is there and has these digests.

    Args:
        folders: The data set's and the teacher's.
        task: As ``task`` in params.yaml.
        teacher: Digest of the teacher.
        dataset: Digest of the data set.
    """
    try:
        found = read_inputs(folders[0], folders[1], task)
    except (RecstillError, OSError):
        return None
    return found if (found.teacher_digest, found.dataset_digest) == (teacher, dataset) else None


def send_inputs(store: ObjectStore, key: str, dataset_folder: Path, teacher_folder: Path) -> tuple[InputFile, ...]:
    """Put into the store what :func:`read_inputs` reads; not the names of users, which it does not.

    Args:
        store: Where to.
        key: Of the folder in the store.
        dataset_folder: What ``prepare`` wrote.
        teacher_folder: What ``train_teacher`` wrote.

    Raises:
        DataError: A file is missing.
        StorageError: The store cannot be written.
    """
    sent = []
    for name, path in _files(dataset_folder, teacher_folder):
        if not path.is_file():
            raise DataError(f"{path} is missing", "Run the stage that makes it: `recstill run`.")
        sent.append(InputFile(name=name, sha256=file_digest(path)))
        store.put(f"{key}/{name}", path, sent[-1].sha256)
    return tuple(sent)


def fetch_inputs(store: ObjectStore, key: str, files: Sequence[InputFile], task: str) -> Inputs:
    """Read both from the store, through a temporary folder.

    Args:
        store: Where they are.
        key: Of the folder in the store.
        files: What :func:`send_inputs` gave.
        task: As ``task`` in params.yaml.

    Raises:
        IntegrityError: A file is damaged.
        StorageError: A file is missing, or the store cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="recstill-inputs-") as name:
        folder = Path(name)
        for file in files:
            store.get_to_file(f"{key}/{file.name}", folder / file.name, file.sha256)
        return read_inputs(folder / "dataset", folder / "teacher", task)


def _files(dataset_folder: Path, teacher_folder: Path) -> Iterator[tuple[str, Path]]:
    for name in (RECORD_FILE, "items.parquet", *(f"{split}.parquet" for split in SPLITS)):
        yield f"dataset/{name}", dataset_folder / name
    yield f"teacher/{TEACHER_FILE}", teacher_folder / TEACHER_FILE
    for member in member_folders(teacher_folder):
        for name in (ARCHITECTURE_FILE, WEIGHTS_FILE):
            yield f"teacher/{member.name}/{name}", member / name
