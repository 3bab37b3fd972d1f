"""Parts that were fetched before, in a folder that does not grow beyond its bound."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from components.storage.contract import ObjectStore

DEFAULT_BYTES = 20 << 30
_SUFFIX = ".safetensors"
# A temporary file this old belongs to a process that was killed.
_ABANDONED_SECONDS = 3600.0


class DiskCache:
    """Files named by their SHA-256, the least recently used removed first. Several processes may share it.

    What it holds is not trusted: whoever reads a file checks its digest, and calls :meth:`fetch` when it is wrong.

    Args:
        folder: Where the files are; made when it is needed.
        max_bytes: Bound on their sum. The newest file stays even if it alone is larger.
    """

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_BYTES) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def path(self, sha256: str) -> Path:
        """Where the content with this digest is, if it is here; counts as a use."""
        path = self._folder / f"{sha256}{_SUFFIX}"
        with contextlib.suppress(OSError):
            os.utime(path)
        return path

    def fetch(self, store: ObjectStore, key: str, sha256: str) -> Path:
        """Bring an object from the store, checked, over whatever was here.

        Raises:
            MissingObjectError: There is no such object.
            IntegrityError: The object is damaged.
            StorageError: The store cannot be read, or the disk is full.
        """
        path = self._folder / f"{sha256}{_SUFFIX}"
        store.get_to_file(key, path, sha256)
        self._shrink(keep=path)
        return path

    def _shrink(self, keep: Path) -> None:
        files = []
        for path in self._folder.iterdir():
            # Another process may remove a file at any time.
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                if path.suffix == _SUFFIX and not path.name.startswith("."):
                    files.append((path == keep, state.st_mtime, path, state.st_size))
                elif path.name.startswith(".") and time.time() - state.st_mtime > _ABANDONED_SECONDS:
                    path.unlink()
        total = sum(size for *_, size in files)
        for kept, _, path, size in sorted(files):
            if total <= self._max_bytes or kept:
                return
            path.unlink(missing_ok=True)
            total -= size
