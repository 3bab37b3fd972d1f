"""Where copies of bytes are that Recstill has made: DVC's caches and remote, the store, work trees, readers' caches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from components.storage.contract import ObjectStore
from flows.auditing.scratch import scratch_folder
from flows.locked_outputs import FOLDER
from flows.references import worktrees
from flows.remote_objects import RemoteObjects, cache_objects, remote_objects
from flows.repository import store_of

READER_CACHE = ".recstill/soft-label-cache"
"""Where the reader of soft labels keeps parts of a store that is elsewhere."""
REPRODUCED = ".recstill/reproduced"
"""Where versions are made again."""


@dataclass
class Places:
    """All of them, opened.

    Attributes:
        root: The checkout.
        trees: It, and every other work tree of its repository.
        caches: DVC's caches that any of those uses.
        remote: DVC's remote.
        store: The object store.
        scratch: A folder for copies that are looked into, gone at the end.
    """

    root: Path
    trees: list[Path]
    caches: list[RemoteObjects]
    remote: RemoteObjects
    store: ObjectStore
    scratch: Path

    def read(self, md5: str) -> bytes | None:
        """The sound bytes of a small object of DVC; None when it is nowhere, or damaged everywhere."""
        for place in (*self.caches, self.remote):
            try:
                content = place.read(md5)
            except OSError:
                continue
            if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5.removesuffix(FOLDER):
                return content
        return None

    def members(self, md5: str) -> dict[str, str] | None:
        """MD5 by name of the files of a folder; None when its listing is nowhere."""
        content = self.read(md5)
        try:
            return None if content is None else {str(one["relpath"]): str(one["md5"]) for one in json.loads(content)}
        except (ValueError, KeyError, TypeError):
            return None

    def fetch(self, md5: str, target: Path) -> bool:
        """Write an object to a file, hashed; False when it is nowhere, or damaged everywhere."""
        target.parent.mkdir(parents=True, exist_ok=True)
        for place in (*self.caches, self.remote):
            if place.fetch(md5, target):
                return True
        target.unlink(missing_ok=True)
        return False

    def files(self, md5: str, path: str) -> dict[str, str]:
        """MD5 by path of the files of an output; without its listing, a folder is not known to have any."""
        if not md5.endswith(FOLDER):
            return {path: md5}
        return {f"{path}/{name}": one for name, one in (self.members(md5) or {}).items()}


@contextmanager
def opened_places(root: Path) -> Iterator[Places]:
    """All places of a checkout.

    Raises:
        StorageError: DVC's remote cannot be used.
    """
    with ExitStack() as stack:
        caches: dict[str, RemoteObjects] = {}
        trees = worktrees(root)
        for tree in trees:
            if (tree / ".dvc").is_dir():
                cache = stack.enter_context(cache_objects(tree))
                caches.setdefault(cache.address, cache)
        remote = stack.enter_context(remote_objects(root))
        scratch = stack.enter_context(scratch_folder(root))
        yield Places(root, trees, list(caches.values()), remote, store_of(root), scratch)


def left_behind(tree: Path) -> Iterator[Path]:
    """Folders of a work tree, beside its outputs, in which runs leave copies of data, models and packages."""
    for name in ("champion", "failed", "training", "tune", "reproduced", "evidence"):
        folder = tree / ".recstill" / name
        if folder.is_dir():
            yield folder


def by_md5(folder: Path, suffixes: tuple[str, ...]) -> Mapping[str, list[Path]]:
    """The files below a folder whose names end in one of some words, by their MD5; links are not followed."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if path.is_file() and not path.is_symlink() and path.name.endswith(suffixes):
            with path.open("rb") as stream:
                md5 = hashlib.file_digest(stream, "md5").hexdigest()
            found.setdefault(md5, []).append(path)
    return found
