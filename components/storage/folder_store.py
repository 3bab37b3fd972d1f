"""The object store in a folder: the default, which needs no server."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from components.errors import StorageError
from components.storage.atomic import clear_disk_errors, new_file, sync_file, sync_folder, temporary_file
from components.storage.contract import (
    StoredObject,
    checked_key,
    damaged,
    missing,
    no_leftover,
    not_as_announced,
)

_CHUNK = 1 << 20


class FolderStore:
    """Objects as files below a folder; see :class:`~components.storage.contract.ObjectStore`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def address(self) -> str:
        """``file:///folder``."""
        return f"file://{self._folder}"

    def put(self, key: str, content: bytes | Path, sha256: str) -> None:
        """Write to a temporary file, sync, check, rename."""
        path = self._path(key)
        with new_file(path) as temporary:
            if not _copy(content, temporary, sha256):
                raise not_as_announced(key)

    def put_if_absent(self, key: str, content: bytes, sha256: str) -> bool:
        """Write to a temporary file, then give it its name only if nothing has that name: one winner."""
        path = self._path(key)
        with temporary_file(path) as temporary:
            if not _copy(content, temporary, sha256):
                raise not_as_announced(key)
            temporary.chmod(0o644)
            sync_file(temporary)
            try:
                # Unlike a rename, a hard link never replaces what is there.
                os.link(temporary, path)
            except FileExistsError:
                return False
        sync_folder(path.parent)
        return True

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """Read the file and check its digest."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise missing(key, self.address) from None
        except PermissionError:
            raise StorageError(f"{path} cannot be read", "Check its permissions.") from None
        if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
            raise damaged(key, self.address)
        return content

    def get_to_file(self, key: str, path: Path, sha256: str) -> None:
        """Copy the file and check its digest on the way."""
        if not self._path(key).is_file():
            raise missing(key, self.address)
        with new_file(path) as temporary:
            if not _copy(self._path(key), temporary, sha256):
                raise damaged(key, self.address)

    def check(self, key: str, sha256: str) -> None:
        """Hash the file."""
        path = self._path(key)
        try:
            with path.open("rb", buffering=0) as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise missing(key, self.address) from None
        except PermissionError:
            raise StorageError(f"{path} cannot be read", "Check its permissions.") from None
        if found != sha256:
            raise damaged(key, self.address)

    def size(self, key: str) -> int | None:
        """Size of the file."""
        path = self._path(key)
        return path.stat().st_size if path.is_file() else None

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Walk the folder; temporary files of writers at work are not objects."""
        yield from _files(self._folder, prefix, hidden=False)

    def delete(self, key: str) -> None:
        """Remove the file."""
        with clear_disk_errors(self._path(key)):
            self._path(key).unlink(missing_ok=True)

    def leftovers(self, prefix: str) -> Iterator[StoredObject]:
        """Walk the folder for temporary files."""
        yield from _files(self._folder, prefix, hidden=True)

    def discard(self, leftover: StoredObject) -> None:
        """Remove a temporary file."""
        folder, separator, name = leftover.key.rpartition("/")
        # Without its dots a temporary name is an ordinary one: nothing outside the store can be meant.
        if not name.startswith(".") or not name.strip("."):
            raise no_leftover(leftover.key)
        checked_key(folder + separator + name.lstrip("."))
        with clear_disk_errors(self._folder / leftover.key):
            (self._folder / leftover.key).unlink(missing_ok=True)

    def local_file(self, key: str) -> Path | None:
        """The object's own file; it is only ever replaced whole."""
        return self._path(key)

    def _path(self, key: str) -> Path:
        return self._folder / checked_key(key)


def _copy(content: bytes | Path, path: Path, sha256: str) -> bool:
    """Write content to ``path``; whether it has that digest."""
    digest = hashlib.sha256()
    with path.open("wb") as target:
        if isinstance(content, bytes):
            digest.update(content)
            target.write(content)
        else:
            with content.open("rb") as source:
                while chunk := source.read(_CHUNK):
                    digest.update(chunk)
                    target.write(chunk)
    return digest.hexdigest() == sha256


def _files(folder: Path, prefix: str, hidden: bool) -> list[StoredObject]:
    """Files whose key begins with ``prefix``, sorted by key: those whose names begin with a dot, or the others."""
    found: list[StoredObject] = []
    above = prefix.split("/")[:-1]
    if not all(part.strip(".") for part in above):  # no key begins so
        return found
    # Only what the prefix can be in is walked: a store may hold a hundred thousand files of another kind.
    for place, _, names in os.walk(folder.joinpath(*above)):
        for name in names:
            path = Path(place, name)
            key = path.relative_to(folder).as_posix()
            if not key.startswith(prefix) or name.startswith(".") != hidden:
                continue
            # Another process may remove a file at any time.
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                if stat.S_ISREG(state.st_mode):
                    found.append(StoredObject(key, state.st_size, state.st_mtime))
    return sorted(found)
