"""What lies in the store below ``soft-labels/``: caches that are whole, unfinished or damaged, without their labels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from components.errors import DataError, IntegrityError
from components.soft_labels.manifest import MANIFEST_NAME, Manifest, read_manifest, record_name
from components.storage.contract import MissingObjectError, ObjectStore, StoredObject, is_key

PREFIX = "soft-labels/"
SHORTEST_ID = 6
SHOWN_ID = 12
State = Literal["complete", "incomplete", "damaged"]

_RECORD = re.compile(r"part-(\d{5,})\.json")
_ID = re.compile(r"[0-9a-f]{64}")
_ABBREVIATED = re.compile(rf"[0-9a-f]{{{SHORTEST_ID},64}}")
_AT_ONCE = 8


@dataclass(frozen=True)
class CacheEntry:
    """One cache as the store lists it.

    Attributes:
        id: The cache id, by which its objects are named.
        objects: Everything below ``soft-labels/<id>/``, sorted by key.
        content: The manifest's bytes; None when there is no manifest.
        manifest: What it says, when it can be read.
        problem: What is wrong with a cache that has a manifest: in words, empty when nothing is.
    """

    id: str
    objects: tuple[StoredObject, ...]
    content: bytes | None
    manifest: Manifest | None
    problem: str

    @property
    def state(self) -> State:
        """``complete``: a manifest, and every part that it names, in its size. ``incomplete``: no manifest."""
        if self.content is None:
            return "incomplete"
        return "damaged" if self.problem else "complete"

    @property
    def bytes(self) -> int:
        """Bytes of the parts, and while there is no manifest of all that there is."""
        return self.manifest.bytes if self.manifest else sum(entry.bytes for entry in self.objects)

    @property
    def modified(self) -> float:
        """When the newest object was written."""
        return max((entry.modified for entry in self.objects), default=0.0)

    @property
    def records(self) -> list[StoredObject]:
        """The records of parts, each written after its part; they are what an interrupted writer goes on from."""
        return [entry for entry in self.objects if _RECORD.fullmatch(self.name(entry))]

    @property
    def strays(self) -> list[StoredObject]:
        """Objects that the manifest neither is nor names; empty without a readable manifest, when nobody can say."""
        if self.manifest is None:
            return []
        known = {MANIFEST_NAME, *(part.name for part in self.manifest.parts)}
        known.update(record_name(part.number) for part in self.manifest.parts)
        return [entry for entry in self.objects if self.name(entry) not in known]

    def key(self, name: str) -> str:
        """Key of something that belongs to the cache."""
        return f"{PREFIX}{self.id}/{name}"

    def name(self, entry: StoredObject) -> str:
        """The key of one of the objects without what all of them begin with."""
        return entry.key.removeprefix(self.key(""))

    def first_to_delete(self, entry: StoredObject) -> int:
        """The step at which an object goes: the manifest first, so that no reader meets one whose parts are gone."""
        if self.name(entry) == MANIFEST_NAME:
            return 0
        return 1 if _RECORD.fullmatch(self.name(entry)) else 2


def read_caches(store: ObjectStore) -> list[CacheEntry]:
    """Every cache in the store, sorted by id; one that is damaged does not hide the others.

    Raises:
        StorageError: The store cannot be read.
    """
    return _entries(store, store.list(PREFIX))


def read_cache(store: ObjectStore, cache_id: str) -> CacheEntry | None:
    """One cache as it is now; None when the store has nothing of it.

    Raises:
        StorageError: The store cannot be read.
    """
    return next(iter(_entries(store, store.list(f"{PREFIX}{cache_id}/"))), None)


def cache_named(caches: Sequence[CacheEntry], text: str) -> CacheEntry | None:
    """The cache whose id begins with ``text``; None when there is none.

    Raises:
        DataError: It is too short, or the ids of several begin with it.
    """
    if not _ABBREVIATED.fullmatch(text):
        if re.fullmatch(r"[0-9a-f]+", text):
            raise DataError(f"{text!r} is too short for a cache id", f"Give at least {SHORTEST_ID} of its digits.")
        return None
    found = [cache for cache in caches if cache.id.startswith(text)]
    if len(found) > 1:
        ids = " and ".join(cache.id[: max(SHOWN_ID, len(text) + 4)] for cache in found)
        raise DataError(f"{text!r} may be any of {len(found)} caches: {ids}", "Give more digits.")
    return found[0] if found else None


def _entries(store: ObjectStore, listing: Iterable[StoredObject]) -> list[CacheEntry]:
    # A name that no key can have was put there by somebody else: it can be neither read nor deleted through the store.
    own = (entry for entry in listing if is_key(entry.key))
    groups = [(cache_id, tuple(group)) for cache_id, group in groupby(own, key=_cache_id) if cache_id]
    # One small request for each cache, each of which takes its time on a store that is far away.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda group: _entry(store, *group), groups))


def _cache_id(entry: StoredObject) -> str:
    """The cache that an object belongs to; empty for what only lies beside the caches."""
    first, _, rest = entry.key.removeprefix(PREFIX).partition("/")
    return first if rest and _ID.fullmatch(first) else ""


def _entry(store: ObjectStore, cache_id: str, objects: tuple[StoredObject, ...]) -> CacheEntry:
    key = f"{PREFIX}{cache_id}/{MANIFEST_NAME}"
    sizes = {entry.key: entry.bytes for entry in objects}
    if key not in sizes:
        return CacheEntry(cache_id, objects, None, None, "")
    try:
        content = store.get(key)
    except MissingObjectError:  # removed since it was listed
        return CacheEntry(cache_id, objects, None, None, "")
    except IntegrityError as error:  # it is not even what its own digest says
        return CacheEntry(cache_id, objects, b"", None, error.message)
    try:
        manifest = read_manifest(content, MANIFEST_NAME)
    except IntegrityError as error:
        return CacheEntry(cache_id, objects, content, None, error.message)
    if manifest.id != cache_id:
        problem = f"{MANIFEST_NAME} is that of another cache, {manifest.id[:SHOWN_ID]}"
        return CacheEntry(cache_id, objects, content, None, problem)
    wrong = [part.name for part in manifest.parts if sizes.get(manifest.key(part.name)) != part.bytes]
    problem = f"{len(wrong)} of {len(manifest.parts)} parts missing or cut: {wrong[0]}" if wrong else ""
    return CacheEntry(cache_id, objects, content, manifest, problem)
