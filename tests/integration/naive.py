"""Implementations as one writes them first. Each harness of these tests must find them failing."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch

from components.errors import StorageError
from components.soft_labels.codecs.building import codec_of
from components.soft_labels.labels import SoftLabels
from components.soft_labels.manifest import Manifest
from components.soft_labels.parts import part_columns
from components.storage.contract import ObjectStore, StoredObject
from components.storage.folder_store import FolderStore
from tests.integration.killed_writers import LoggedTeacher, write


class InPlaceStore(FolderStore):
    """Writes a file where it will be read, piece by piece."""

    def put(self, key: str, content: bytes | Path, sha256: str) -> None:
        whole = content if isinstance(content, bytes) else content.read_bytes()
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
        for start in range(0, len(whole), 1024):
            with path.open("ab") as stream:
                stream.write(whole[start : start + 1024])

    def put_if_absent(self, key: str, content: bytes, sha256: str) -> bool:
        if self._path(key).is_file():
            return False
        self.put(key, content, sha256)
        return True


def write_manifest_first(store: ObjectStore, teacher: LoggedTeacher, dataset: str) -> Manifest:
    """Announces the cache, then brings its parts, as one does who thinks of no interruption."""
    with tempfile.TemporaryDirectory() as folder:
        scored = FolderStore(Path(folder))
        manifest = write(scored, teacher, dataset)
        for name in ("manifest.json", *(part.name for part in manifest.parts)):
            content = scored.get(manifest.key(name))
            store.put(manifest.key(name), content, hashlib.sha256(content).hexdigest())
    return manifest


def write_what_is_missing(store: ObjectStore, teacher: LoggedTeacher, dataset: str) -> Manifest:
    """Parts first, but takes whatever lies there under a part's name for the part."""
    with tempfile.TemporaryDirectory() as folder:
        scored = FolderStore(Path(folder))
        manifest = write(scored, teacher, dataset)
        for name in (*(part.name for part in manifest.parts), "manifest.json"):
            content = scored.get(manifest.key(name))
            if store.size(manifest.key(name)) is None:
                store.put(manifest.key(name), content, hashlib.sha256(content).hexdigest())
    return manifest


class TrustingReader:
    """Takes a local file for what it was when it was written."""

    def __init__(self, store: ObjectStore, manifest: Manifest, cache_folder: Path) -> None:
        self._store, self._manifest, self._folder = store, manifest, cache_folder
        self._codec = codec_of(manifest.codec, manifest.outcomes)
        self._folder.mkdir(parents=True, exist_ok=True)

    def labels(self, points: torch.Tensor) -> SoftLabels:
        pieces = []
        for part in self._manifest.parts:
            key = self._manifest.key(part.name)
            path = self._store.local_file(key) or self._folder / f"{part.name}.safetensors"
            if not path.is_file():
                path.write_bytes(self._store.get(key))
            pieces.append(part_columns(path.read_bytes(), self._codec, part.rows, part.name))
        wanted = points.numpy()
        columns = {name: np.concatenate([piece[name] for piece in pieces])[wanted] for name in self._codec.columns}
        return self._codec.decode(columns)


class LookThenPut:
    """A store whose conditional put asks whether there is an object, and then puts."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_if_absent(self, key: str, content: bytes, sha256: str) -> bool:
        if self._store.size(key) is not None:
            return False
        self._store.put(key, content, sha256)
        return True


class SendingLater:
    """A store that takes a write for done when it has been queued, and lists it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store, self._queue = store, SimpleQueue[Callable[[], object]]()
        self._taken: dict[str, int] = {}
        threading.Thread(target=self._send, daemon=True).start()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, key: str, content: bytes | Path, sha256: str) -> None:
        self._taken[key] = len(content) if isinstance(content, bytes) else content.stat().st_size
        self._queue.put(lambda: self._store.put(key, content, sha256))

    def put_if_absent(self, key: str, content: bytes, sha256: str) -> bool:
        self._taken[key] = len(content)
        self._queue.put(lambda: self._store.put_if_absent(key, content, sha256))
        return True

    def list(self, prefix: str) -> list[StoredObject]:
        return [StoredObject(key, size, 0.0) for key, size in self._taken.items() if key.startswith(prefix)]

    def _send(self) -> None:
        while True:
            with contextlib.suppress(StorageError):
                self._queue.get()()


def joined(folder: Path, key: str) -> bytes:
    """What a store hands over that joins its folder and a name."""
    return (folder / key).read_bytes()
