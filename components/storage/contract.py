"""What every object store does: content by key, never half-written, checked on every read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from components.errors import IntegrityError, StorageError

# A segment never begins with a dot: no "..", and temporary names of the folder store can clash with no key.
_KEY = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9._=-]*(/[A-Za-z0-9_=-][A-Za-z0-9._=-]*)*")
_LONGEST_KEY = 900


class MissingObjectError(StorageError):
    """The store answers, and has no object of that key."""


class StoredObject(NamedTuple):
    """One entry of a listing.

    Attributes:
        key: Its key.
        bytes: Its size.
        modified: When it was written, in seconds since 1970, by the store's own clock.
    """

    key: str
    bytes: int
    modified: float


class ObjectStore(Protocol):
    """Content by key. Every write is whole or absent; every read that names a digest is checked against it.

    A store may be shared by many writers and readers. Errors never show a credential.
    """

    @property
    def address(self) -> str:
        """What was opened, for messages: ``file:///folder`` or ``s3://bucket/prefix``."""

    def put(self, key: str, content: bytes | Path, sha256: str) -> None:
        """Write an object, over an older one if there is one.

        Args:
            key: Segments of letters, digits and ``. _ = -``, separated by ``/``.
            content: The bytes, or the file that holds them.
            sha256: SHA-256 of the content, 64 hexadecimal digits.

        Raises:
            IntegrityError: The content has another digest.
            StorageError: The key is not valid, or the store cannot be written.
        """

    def put_if_absent(self, key: str, content: bytes, sha256: str) -> bool:
        """Write a small object unless there is one already; of many writers that race, exactly one wins.

        Returns:
            True when this call wrote it.

        Raises:
            IntegrityError: The content has another digest.
            StorageError: The key is not valid, or the store cannot be written.
        """

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """The content of an object.

        Args:
            key: Its key.
            sha256: The digest that it must have; without one the content is taken as it comes.

        Raises:
            MissingObjectError: There is no such object.
            IntegrityError: The content has another digest.
            StorageError: The store cannot be read.
        """

    def get_to_file(self, key: str, path: Path, sha256: str) -> None:
        """Write the content of an object to ``path``, which appears only when its digest is right.

        Raises:
            MissingObjectError: There is no such object.
            IntegrityError: The content has another digest.
            StorageError: The store cannot be read, or the file cannot be written.
        """

    def check(self, key: str, sha256: str) -> None:
        """Read an object in pieces and compare its digest; nothing of it is kept.

        Raises:
            MissingObjectError: There is no such object.
            IntegrityError: The content has another digest.
            StorageError: The store cannot be read.
        """

    def size(self, key: str) -> int | None:
        """Bytes of an object, None when there is none."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects whose key begins with ``prefix``, sorted by key."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""

    def leftovers(self, prefix: str) -> Iterator[StoredObject]:
        """What writers that were killed, or are still at work, have left below ``prefix`` and that is no object.

        Temporary files of a folder, uploads in parts that were never completed. Their keys name no object; those of
        uploads have 0 bytes, since the store does not tell.
        """

    def discard(self, leftover: StoredObject) -> None:
        """Remove something that :meth:`leftovers` named; what is gone already is no error.

        Raises:
            StorageError: It is no leftover, or the store cannot be written.
        """

    def local_file(self, key: str) -> Path | None:
        """The file of an object when the store is a folder of this machine, so that no copy is needed; else None."""


def checked_key(key: str) -> str:
    """``key`` itself, when it can name an object.

    Raises:
        StorageError: It is absolute, leaves its prefix (``..``), or has characters that no key may have.
    """
    if not is_key(key):
        raise StorageError(f"{key[:100]!r} is not a valid object key")
    return key


def is_key(key: str) -> bool:
    """Whether ``key`` can name an object."""
    return len(key) <= _LONGEST_KEY and _KEY.fullmatch(key) is not None


def no_leftover(key: str) -> StorageError:
    """The error of a key that is to be discarded and could be that of an object."""
    return StorageError(f"{key[:100]!r} is not a leftover of a writer")


def missing(key: str, address: str) -> MissingObjectError:
    """The error of a key that no object has."""
    return MissingObjectError(f"there is no object {key} in {address}")


def damaged(key: str, address: str) -> IntegrityError:
    """The error of an object whose content is not what its digest says."""
    return IntegrityError(f"object {key} in {address} is damaged: its SHA-256 is not the one recorded")


def not_as_announced(key: str) -> IntegrityError:
    """The error of content that is to be written and has not the digest given with it."""
    return IntegrityError(f"what was to be written as {key} is not what its SHA-256 says")
