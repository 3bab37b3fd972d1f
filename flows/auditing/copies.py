"""Where else the bytes of an object may lie: another store, DVC's cache, work trees, and the checkout's own two places.

A copy is worth what its digest says: every one is hashed before it is used, and again once it is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from components.errors import RecstillError, StorageError
from components.storage.contract import ObjectStore
from components.storage.object_store import open_store
from flows.auditing.audited import Audited
from flows.auditing.claims import Claim
from flows.repository import without_credentials

_DVC = ("dvc/files/md5", "files/md5")
_CHUNK = 1 << 20


class Copy(NamedTuple):
    """Something that may be the bytes.

    Attributes:
        where: In words.
        save: Writes it to a file; whatever goes wrong there, it is no copy then.
    """

    where: str
    save: Callable[[Path], object]


class Copies:
    """Other places in which to look.

    Args:
        audit: What was audited.
        addresses: Other stores: ``file:///folder``, ``s3://bucket/prefix``, or a folder's path; a remote of DVC too.
        sha256: SHA-256 by MD5, as signed statements have them.
        folders: Of this machine, in which files of outputs may lie.

    Raises:
        StorageError: An address is none.
    """

    def __init__(
        self,
        audit: Audited,
        addresses: Iterable[str],
        sha256: dict[str, str],
        folders: Iterable[Path] = (),
    ) -> None:
        self._audit = audit
        self.stores = [opened(address) for address in addresses]
        self._sha256, self._md5 = sha256, {one: md5 for md5, one in sha256.items()}
        self._folders = list(folders)

    def of(self, claim: Claim) -> Iterator[Copy]:
        """Everything that may be the bytes of an object, the likeliest first."""
        if claim.content is not None:
            content = claim.content
            yield Copy("the manifest that names it", lambda path: path.write_bytes(content))
        md5 = claim.md5 if claim.place == "remote" else self._md5.get(claim.sha256 or "")
        sha256 = claim.sha256 or self._sha256.get(claim.object)
        name = claim.object if claim.place == "remote" else md5
        for store in self.stores:
            keys = [claim.object] if claim.place == "store" else []
            keys += [f"{prefix}/{name[:2]}/{name[2:]}" for prefix in _DVC if name]
            for key in keys:
                yield Copy(f"{key} in {without_credentials(store.address)}", _saving(store, key, sha256))
        if name:
            yield from self._of_cache(name)
            if claim.place == "store" and (remote := self._audit.places.remote):
                yield Copy(f"DVC's remote {remote.address}", lambda path: remote.fetch(name, path))
        if claim.place == "remote" and sha256:
            for other in self._audit.ledger:
                if other.place == "store" and other.sha256 == sha256:
                    where = f"{other.object} of the store itself"
                    yield Copy(where, _saving(self._audit.store, other.object, sha256))
        for known in (sha256, md5):
            if known and (path := self._lying_about.get(known)):
                yield Copy(str(path), _copying(path))

    def _of_cache(self, md5: str) -> Iterator[Copy]:
        if self._cache is None:
            return
        path = self._cache / md5[:2] / md5[2:]
        if path.is_file():
            yield Copy(f"DVC's cache {path}", _copying(path))

    @cached_property
    def _cache(self) -> Path | None:
        """Where DVC's cache keeps its objects by their MD5, two digits above the rest; None: it cannot be opened."""
        from flows.dvc_remote import opened_cache

        try:
            with opened_cache(self._audit.root) as cache:
                return Path(cache.odb.path)
        except RecstillError:
            return None

    @cached_property
    def _lying_about(self) -> dict[str, Path]:
        """Files of outputs in work trees, by both digests. They are hashed once, and only when somebody asks."""
        found: dict[str, Path] = {}
        trees = [tree for lock in self._audit.locks.locks for tree in lock.where]
        for folder in [*self._folders, *(tree / "artifacts" for tree in dict.fromkeys([self._audit.root, *trees]))]:
            for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
                if path.is_file() and not path.is_symlink():
                    md5, sha256 = both_digests(path)
                    found.setdefault(md5, path)
                    found.setdefault(sha256, path)
        return found


def opened(address: str) -> ObjectStore:
    """The store at an address, or in a folder.

    Raises:
        StorageError: There is none.
    """
    if "://" not in address:
        folder = Path(address).expanduser().resolve()
        if not folder.is_dir():
            raise StorageError(f"{address} is no folder", "Name a store: a folder, file:///folder, s3://bucket/prefix.")
        inside = folder / ".recstill" / "store"
        address = f"file://{inside if inside.is_dir() else folder}"
    return open_store(address)


def both_digests(path: Path) -> tuple[str, str]:
    """MD5 and SHA-256 of a file, read once."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK):
            md5.update(piece)
            sha256.update(piece)
    return md5.hexdigest(), sha256.hexdigest()


def _saving(store: ObjectStore, key: str, sha256: str | None) -> Callable[[Path], object]:
    def save(path: Path) -> None:
        if sha256:
            store.get_to_file(key, path, sha256)
        else:
            path.write_bytes(store.get(key))

    return save


def _copying(source: Path) -> Callable[[Path], object]:
    def save(path: Path) -> None:
        with source.open("rb") as stream, path.open("wb") as target:
            while piece := stream.read(_CHUNK):
                target.write(piece)

    return save
