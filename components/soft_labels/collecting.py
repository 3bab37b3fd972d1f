"""What nobody can reach any more below ``soft-labels/``, and in which order it is deleted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from components.soft_labels.inventory import PREFIX, SHOWN_ID, CacheEntry
from components.storage.contract import ObjectStore, StoredObject

_AT_ONCE = 8


@dataclass(frozen=True)
class Unreachable:
    """Something that can be deleted.

    Attributes:
        entry: The object.
        reason: Why nobody needs it.
        step: Lower ones are deleted first.
        leftover: Whether it is no object but a temporary file or an unfinished upload.
    """

    entry: StoredObject
    reason: str
    step: int
    leftover: bool = False


def unreachable(
    store: ObjectStore,
    caches: Sequence[CacheEntry],
    *,
    before: float,
    untouchable: Callable[[CacheEntry], bool],
    unreferenced: Callable[[CacheEntry], bool],
) -> list[Unreachable]:
    """Name what can be deleted; nothing is.

    Of a complete cache: what its manifest does not name, left by writers that lost a race. Of an incomplete one:
    everything, once its newest object is old enough, since a writer that goes on reuses old parts. Of a damaged one:
    nothing, since it can be healed from what is left. Temporary files and unfinished uploads of killed writers.
    Whole caches only when ``unreferenced`` says so.

    Args:
        store: Where they are.
        caches: All of the store.
        before: Only what was written before this time (seconds since 1970) is named: a writer may be at work.
        untouchable: Whether a cache is left alone whatever it looks like.
        unreferenced: Whether a whole cache may go.
    """
    found: list[Unreachable] = []
    for cache in caches:
        if not untouchable(cache):
            found += _of(cache, before, unreferenced)
    found += [
        Unreachable(entry, "a writer that was killed left it", 0, leftover=True)
        for entry in store.leftovers(PREFIX)
        if entry.modified < before
    ]
    return found


def _of(cache: CacheEntry, before: float, unreferenced: Callable[[CacheEntry], bool]) -> Iterator[Unreachable]:
    settled = cache.modified < before
    short = cache.id[:SHOWN_ID]
    if cache.state == "incomplete":
        if settled:
            yield from _whole(cache, f"cache {short} was never finished")
    elif settled and unreferenced(cache):
        yield from _whole(cache, f"nothing in this repository refers to cache {short}")
    elif cache.state == "complete":
        for entry in cache.strays:
            if entry.modified < before:
                yield Unreachable(entry, _reason(cache.name(entry), short), cache.first_to_delete(entry))


def _reason(name: str, cache: str) -> str:
    if name.startswith("inputs/"):
        return f"cache {cache} is complete, its workers need no inputs any more"
    return f"the manifest of cache {cache} does not name it"


def _whole(cache: CacheEntry, reason: str) -> Iterator[Unreachable]:
    for entry in cache.objects:
        yield Unreachable(entry, reason, cache.first_to_delete(entry))


def whole_cache(cache: CacheEntry) -> list[Unreachable]:
    """All objects of a cache that is to be removed."""
    return list(_whole(cache, "the cache is removed"))


def delete(store: ObjectStore, found: Collection[Unreachable]) -> Iterator[Unreachable]:
    """Delete what was named, manifests before records before parts, each step only after the one before it.

    Interrupted at any point, it leaves caches that are whole or have no manifest, and a second call goes on.

    Yields:
        Each one that is gone.

    Raises:
        StorageError: The store cannot be written.
    """

    def gone(one: Unreachable) -> Unreachable:
        if one.leftover:
            store.discard(one.entry)
        else:
            store.delete(one.entry.key)
        return one

    for step in sorted({one.step for one in found}):
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            waiting = [pool.submit(gone, one) for one in found if one.step == step]
            try:
                for future in waiting:
                    yield future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
