"""Parts that were fetched before, in a folder that does not grow beyond its bound."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from components.soft_labels.manifest import Part
from components.soft_labels.parts import content_of
from components.storage.atomic import clear_disk_errors, new_file
from components.storage.contract import ObjectStore

DEFAULT_BYTES = 20 << 30
_SUFFIX = ".safetensors"
_USED = "used"
_DIGEST_LENGTH = 64
# A temporary file of unknown origin that is this old belongs to a process that was killed.
_ABANDONED_SECONDS = 3600.0
_SECONDS_BETWEEN_LOOKS = 0.01
# What file systems say that know no locks: NFS, FUSE, Lustre as it is often mounted.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class DiskCache:
    """The contents of parts, unpacked, as files named by their SHA-256; the least recently used is removed first.

    Several processes and threads may share the folder: of those that want the same part one fetches it and the others
    wait, and a file that one removes stays readable for whoever has it open. What the folder holds is not trusted:
    whoever reads a file checks its digest, and calls :meth:`fetch` when it is wrong.

    When a file was used last is the time of an empty file in the folder ``used``. Its own times are left alone:
    readers take a change of them for a change of the content.

    Args:
        folder: Where the files are; made when it is needed.
        max_bytes: Bound on their sum. The newest file stays even if it alone is larger.
    """

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_BYTES) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self._swept = False
        self._locks = True

    def holds(self, part: Part) -> bool:
        """Whether there is a file of the part's name and size."""
        try:
            return self._path(part.content_sha256).stat().st_size == part.content_bytes
        except OSError:
            return False

    def opened(self, part: Part) -> BinaryIO | None:
        """The part's file, if there is one; counts as a use. The caller checks and closes it."""
        self._sweep_once()
        try:
            stream = self._path(part.content_sha256).open("rb", buffering=0)
        except OSError:
            return None
        self._use(part.content_sha256)
        return stream

    def fetch(self, store: ObjectStore, key: str, part: Part) -> BinaryIO:
        """Bring a part from the store, checked, over whatever was here; or wait while somebody else does.

        Args:
            store: Where the part is.
            key: Its key there.
            part: Its record.

        Returns:
            The file, opened before anybody could remove it again. The caller closes it.

        Raises:
            MissingObjectError: There is no such object.
            IntegrityError: The object is damaged.
            StorageError: The store cannot be read, or the disk is full.
        """
        with clear_disk_errors(self._path(part.content_sha256)):
            self.folder.mkdir(parents=True, exist_ok=True)
            waited = False
            while True:
                with self._alone_with(part.content_sha256) as alone:
                    # Whoever was waited for has brought it, unless something went wrong.
                    stream = self._sound(part) if alone and waited else None
                    if alone and stream is None:
                        stream = self._brought(store, key, part)
                if stream is not None:
                    self._use(part.content_sha256)
                    self._shrink(keep=part.content_sha256)
                    return stream
                waited = True
                time.sleep(_SECONDS_BETWEEN_LOOKS)

    def fetch_if_free(self, store: ObjectStore, key: str, part: Part) -> bool:
        """Bring a part from the store, unless it is here or somebody else is bringing it; see :meth:`fetch`.

        Returns:
            False when somebody else is.
        """
        with clear_disk_errors(self._path(part.content_sha256)):
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._alone_with(part.content_sha256) as alone:
                if not alone or self.holds(part):
                    return alone
                self._brought(store, key, part).close()
            self._use(part.content_sha256)
            self._shrink(keep=part.content_sha256)
            return True

    def _sweep_once(self) -> None:
        """Remove what processes that were killed have left."""
        if self._swept:
            return
        self._swept = True
        now = time.time()
        for path in self._entries(self.folder):
            sha256 = path.name.lstrip(".")[:_DIGEST_LENGTH]
            if not path.name.startswith("."):
                continue
            with contextlib.suppress(OSError):
                if len(sha256) == _DIGEST_LENGTH:
                    # What is written while somebody holds the lock is at work; otherwise its writer is no more.
                    with self._alone_with(sha256) as alone:
                        if alone:
                            self._remove_leftovers(sha256)
                elif now - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()

    def _brought(self, store: ObjectStore, key: str, part: Part) -> BinaryIO:
        """Fetch a part over whatever is here, and open it; the lock is held."""
        self._sweep_once()
        self._remove_leftovers(part.content_sha256)
        path = self._path(part.content_sha256)
        # Not yet under its own name, where others in need of room could remove it before it is opened.
        arrived = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
        if part.compressed:
            with new_file(arrived) as temporary:
                temporary.write_bytes(content_of(store.get(key, part.sha256), part))
        else:
            store.get_to_file(key, arrived, part.sha256)
        stream = arrived.open("rb", buffering=0)
        try:
            arrived.replace(path)
        except BaseException:
            stream.close()
            raise
        return stream

    def _sound(self, part: Part) -> BinaryIO | None:
        """The part's file, when its content is right."""
        stream = self.opened(part)
        if stream is None or hashlib.file_digest(stream, "sha256").hexdigest() == part.content_sha256:  # type: ignore[arg-type]
            return stream
        stream.close()
        return None

    @contextmanager
    def _alone_with(self, sha256: str) -> Iterator[bool]:
        """Whether no other thread of any process is at this part; if so, none is until the block ends.

        The system takes the lock back from a process that is killed.
        """
        path = self.folder / f".{sha256}.lock"
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever had the lock before removed the file at the end: a lock on that keeps nobody out.
                alone = os.path.samestat(os.fstat(handle), path.stat())
            except (BlockingIOError, FileNotFoundError):
                alone = False
            except OSError as error:
                # A file system without locks: two may bring the same part, and the last to arrive stays.
                if error.errno not in _WITHOUT_LOCKS:
                    raise
                alone, self._locks = True, False
            try:
                yield alone
            finally:
                if alone:
                    path.unlink(missing_ok=True)
                    # A process forked meanwhile has the file open too: closing it here would not be enough.
                    if self._locks:
                        fcntl.flock(handle, fcntl.LOCK_UN)
        finally:
            os.close(handle)

    def _remove_leftovers(self, sha256: str) -> None:
        now = time.time()
        for path in self._entries(self.folder):
            if path.name.startswith(".") and path.name.lstrip(".").startswith(f"{sha256}{_SUFFIX}"):
                with contextlib.suppress(FileNotFoundError):
                    # Without locks, what is young may be somebody's work.
                    if self._locks or now - path.stat().st_mtime > _ABANDONED_SECONDS:
                        path.unlink()

    def _shrink(self, keep: str) -> None:
        """Remove the least recently used files until the others are within the bound."""
        used = {path.name: path for path in self._entries(self.folder / _USED)}
        files = []
        for path in self._entries(self.folder):
            # Another process may remove a file at any time.
            with contextlib.suppress(FileNotFoundError):
                if path.suffix == _SUFFIX and not path.name.startswith("."):
                    state, mark = path.stat(), used.pop(path.stem, None)
                    last = state.st_mtime if mark is None else mark.stat().st_mtime
                    files.append((path.stem == keep, last, path, state.st_size))
        for mark in used.values():
            mark.unlink(missing_ok=True)
        total = sum(size for *_, size in files)
        for kept, _, path, size in sorted(files):
            if total <= self.max_bytes or kept:
                return
            path.unlink(missing_ok=True)
            (self.folder / _USED / path.stem).unlink(missing_ok=True)
            total -= size

    def _use(self, sha256: str) -> None:
        mark = self.folder / _USED / sha256
        # Without its mark, a file counts as used when it was written.
        with contextlib.suppress(OSError):
            mark.parent.mkdir(exist_ok=True)
            mark.touch()

    def _path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}{_SUFFIX}"

    @staticmethod
    def _entries(folder: Path) -> list[Path]:
        try:
            return list(folder.iterdir())
        except OSError:
            return []
