"""Nothing half-written is ever visible: files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.errors import DataError, StorageError


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``; when the block ends well, it is synced and renamed to ``path``.

    Raises:
        StorageError: The disk is full or the place cannot be written.
    """
    with temporary_file(path) as temporary:
        yield temporary
        temporary.chmod(0o644)
        sync_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)


@contextmanager
def temporary_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path``, in a folder that exists; it is removed when the block ends.

    Raises:
        StorageError: The disk is full or the place cannot be written.
    """
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path``; when the block ends well, it takes the place of ``path``.

    Raises:
        StorageError: The disk is full or the place cannot be written.
    """
    with clear_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        older = temporary.with_name(temporary.name + ".older")
        try:
            yield temporary
            temporary.chmod(0o755)
            for file in temporary.rglob("*"):
                if file.is_file():
                    sync_file(file)
            # A folder cannot be replaced in one step; it is moved aside rather than emptied in its place, so that
            # a kill between the steps leaves no folder, and never half of one.
            if path.is_dir() and not path.is_symlink():
                path.replace(older)
            else:
                path.unlink(missing_ok=True)
            temporary.replace(path)
            sync_folder(path.parent)
        finally:
            if older.exists() and not path.exists():
                older.replace(path)
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(older, ignore_errors=True)


@contextmanager
def clear_disk_errors(path: Path) -> Iterator[None]:
    """Turns "no space", "read-only", "not permitted" and a file where a folder should be into a StorageError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(f"no space left to write {path}", "Free some disk space and run again.") from None
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
            raise StorageError(f"{path} cannot be written: {error.strerror}", "Check its permissions.") from None
        if error.errno in (errno.EIO, errno.ESTALE):
            raise StorageError(f"{path}: {error.strerror}", "Check the disk or the network mount.") from None
        _raise_if_full(path, error)
        raise
    except Exception as error:
        _raise_if_full(path, error)
        raise


def _raise_if_full(path: Path, error: Exception) -> None:
    # Libraries in Rust (safetensors, polars) put the system's error into the text of a class of their own.
    if "No space left on device" in str(error) or "os error 28" in str(error):
        raise StorageError(f"no space left to write {path}", "Free some disk space and run again.") from None


def write_json(path: Path, record: Any) -> None:
    """Write a record as indented JSON with sorted keys, atomically; the same record gives the same bytes."""
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON record.

    Raises:
        DataError: The file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing", "Run the stage that makes it: `recstill run`.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged: {error}", "Delete it and run `recstill run` again.") from None


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk, so that a rename outlives a power cut."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
