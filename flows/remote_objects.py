"""The objects of DVC's remote by their MD5: listed, hashed, read, and put back. DVC itself hashes none of them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from components.errors import IntegrityError
from flows.dvc_remote import open_object, opened_cache, opened_remote, put_object
from flows.locked_outputs import FOLDER, file_md5

_MD5_DIGITS = 32


class StoredBytes(NamedTuple):
    """One object as a place lists it.

    Attributes:
        size: In bytes.
        stamp: Changes when the object is written anew: the time of writing, and an entity tag where there is one.
    """

    size: int
    stamp: str


class RemoteObjects:
    """Made by :func:`remote_objects`.

    Args:
        address: For messages.
        odb: DVC's object database.

    Attributes:
        address: For messages; it holds no credential.
    """

    def __init__(self, address: str, odb: Any) -> None:
        self.address = address
        self._odb = odb
        self._local = odb.fs.protocol == "local"

    def listed(self) -> dict[str, StoredBytes]:
        """Every object, by its MD5 (of a folder's listing with ``.dir`` behind)."""
        return dict(sorted(self._walk() if self._local else self._asked()))

    def name(self, md5: str) -> str:
        """The path of an object, for messages."""
        return str(self._odb.oid_to_path(md5))

    def local_file(self, md5: str) -> Path | None:
        """The file of an object when the remote is a folder of this machine; else None."""
        return Path(self._odb.oid_to_path(md5)) if self._local else None

    def digest(self, md5: str, algorithm: str) -> str:
        """The digest of what is stored, read in pieces.

        Args:
            md5: The object.
            algorithm: ``sha256`` or ``md5``.

        Raises:
            FileNotFoundError: There is no such object.
        """
        with self._stream(md5) as stream:
            if self._local:
                return hashlib.file_digest(stream, algorithm).hexdigest()
            digest = hashlib.new(algorithm, usedforsecurity=False)
            while piece := stream.read(1 << 20):
                digest.update(piece)
            return digest.hexdigest()

    def read(self, md5: str) -> bytes:
        """The content of a small object, unchecked.

        Raises:
            FileNotFoundError: There is no such object.
        """
        with self._stream(md5) as stream:
            return bytes(stream.read())

    def has(self, md5: str) -> bool:
        """Whether there is such an object; it is not read."""
        try:
            self._odb.fs.info(self._odb.oid_to_path(md5))
        except FileNotFoundError:
            return False
        return True

    def written(self, md5: str) -> float:
        """When an object was written, in seconds since 1970; now, where the place does not tell, or has it no more."""
        try:
            about = self._odb.fs.info(self._odb.oid_to_path(md5))
        except FileNotFoundError:
            return time.time()
        when = about.get("mtime") or about.get("LastModified")
        if isinstance(when, datetime):
            return when.timestamp()
        return float(when) if isinstance(when, int | float) else time.time()

    def begins_with(self, md5: str, start: bytes) -> bool:
        """Whether an object begins with some bytes; False when it is not there."""
        try:
            with self._stream(md5) as stream:
                return bytes(stream.read(len(start))) == start
        except FileNotFoundError:
            return False

    def fetch(self, md5: str, target: Path) -> bool:
        """Write an object to a file, hashed on the way; False when it is not there, or damaged."""
        digest = hashlib.md5(usedforsecurity=False)
        try:
            with self._stream(md5) as source, target.open("wb") as stream:
                while piece := source.read(1 << 20):
                    digest.update(piece)
                    stream.write(piece)
        except FileNotFoundError:
            return False
        return digest.hexdigest() == md5.removesuffix(FOLDER)

    def put(self, md5: str, file: Path) -> None:
        """Write an object, over a damaged one if there is one.

        Raises:
            IntegrityError: The file has another MD5.
        """
        if file_md5(file) != md5.removesuffix(FOLDER):
            raise IntegrityError(f"{file} is not what is to be written as {md5}")
        self.delete(md5)
        put_object(self._odb, md5, file)

    def delete(self, md5: str) -> None:
        """Remove an object; one that is not there is no error."""
        try:
            self._odb.fs.info(self._odb.oid_to_path(md5))
        except FileNotFoundError:
            return
        self._odb.delete(md5)

    def _stream(self, md5: str) -> Any:
        return self._odb.fs.fs.open(self.name(md5), "rb") if self._local else open_object(self._odb, md5)

    def _walk(self) -> Iterator[tuple[str, StoredBytes]]:
        root = Path(self._odb.path)
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            if not folder.is_dir():
                continue
            for entry in os.scandir(folder):
                md5 = folder.name + entry.name
                if _is_name(md5) and entry.is_file():
                    state = entry.stat()
                    yield md5, StoredBytes(state.st_size, str(state.st_mtime_ns))

    def _asked(self) -> Iterator[tuple[str, StoredBytes]]:
        try:
            found = self._odb.fs.fs.find(self._odb.path, detail=True)
        except FileNotFoundError:
            return
        for path, about in found.items():
            first, _, rest = path.rstrip("/").rpartition("/")
            md5 = first.rpartition("/")[2] + rest
            if _is_name(md5):
                stamp = f"{about.get('LastModified') or about.get('mtime', '')}{about.get('ETag', '')}"
                yield md5, StoredBytes(int(about.get("size") or 0), stamp)


@contextmanager
def remote_objects(root: Path) -> Iterator[RemoteObjects]:
    """The default remote of a checkout, or that of its store.

    Raises:
        StorageError: It cannot be used; so does whatever its library raises within the block.
    """
    with opened_remote(root) as remote:
        yield RemoteObjects(remote.address, remote.odb)


@contextmanager
def cache_objects(root: Path) -> Iterator[RemoteObjects]:
    """The objects of the cache that a checkout or worktree uses.

    Raises:
        RecstillError: DVC cannot open it.
    """
    with opened_cache(root) as cache:
        yield RemoteObjects(cache.address, cache.odb)


def _is_name(md5: str) -> bool:
    digits = md5.removesuffix(FOLDER)
    return len(digits) == _MD5_DIGITS and all(digit in "0123456789abcdef" for digit in digits)
