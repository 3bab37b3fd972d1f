"""Which caches of the store are in use, and what follows for deleting them: when in doubt, nothing is deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.errors import DataError, RecstillError
from components.soft_labels.inventory import SHOWN_ID, CacheEntry, cache_named, read_caches
from components.soft_labels.manifest import read_manifest
from components.storage.contract import ObjectStore
from flows.references import MANIFESTS, Reference, references

_FETCHED_BY = {"version": "--all-tags ", "tag": "--all-tags ", "branch": "--all-branches ", "workspace": ""}


@dataclass(frozen=True)
class Usage:
    """Who uses which cache.

    Attributes:
        references: All that refer to any cache.
    """

    references: tuple[Reference, ...]

    def of(self, cache_id: str) -> list[Reference]:
        """What refers to a cache."""
        return [reference for reference in self.references if reference.cache == cache_id]

    def unknown(self, *, versions: bool) -> list[Reference]:
        """Registered versions, or all others, of which nobody knows which cache they refer to."""
        return [one for one in self.references if one.cache is None and (one.kind == "version") == versions]

    def is_pinned(self, cache: CacheEntry) -> bool:
        """Whether garbage collection must leave a cache alone, and what lies beside its parts too.

        So it is when a registered version needs it, or may need it; and when something in use has another manifest
        than the store, or the store has none: that manifest may name what the store's does not.
        """
        md5 = hashlib.md5(cache.content or b"", usedforsecurity=False).hexdigest()
        users = self.of(cache.id)
        return bool(self.unknown(versions=True)) or any(one.kind == "version" or one.md5 != md5 for one in users)

    def require_known(self, *, force: bool) -> None:
        """Refuse to delete whole caches while it is not known what uses them.

        Args:
            force: Go on although it is not known of branches, plain tags and workspaces.

        Raises:
            RecstillError: It is not known.
        """
        unknown = [*self.unknown(versions=True), *([] if force else self.unknown(versions=False))]
        if not unknown:
            return
        paths = " ".join(sorted({f"artifacts/{one.scenario}/soft_labels/manifest.json" for one in unknown if one.md5}))
        which = _FETCHED_BY[unknown[0].kind]
        forced = "" if unknown[0].kind == "version" else ", or give --force"
        raise RecstillError(
            f"it is not known which cache these refer to, nothing is deleted: {_listed(unknown)}",
            f"Fetch their manifests (`dvc fetch {which}{paths}`){forced}."
            if paths
            else f"Mend their dvc.lock{forced}.",
        )

    def require_unused(self, cache: CacheEntry, *, force: bool) -> None:
        """Refuse to remove a cache that is in use.

        Args:
            cache: The cache.
            force: Remove it although a branch, a plain tag or a workspace uses it; never what a version needs.

        Raises:
            RecstillError: It is in use, or that is not known.
        """
        users = self.of(cache.id)
        if versions := [one for one in users if one.kind == "version"]:
            raise RecstillError(
                f"cache {cache.id[:SHOWN_ID]} is needed by {_listed(versions)}",
                "What is registered stays reproducible: delete the version's tag first if it really is to go.",
            )
        if users and not force:
            raise RecstillError(
                f"cache {cache.id[:SHOWN_ID]} is in use by {_listed(users)}",
                "Give --force to remove it all the same; `recstill soft-labels build SCENARIO --force` makes it again.",
            )
        self.require_known(force=force)


def survey(root: Path, store: ObjectStore) -> tuple[list[CacheEntry], Usage]:
    """The caches in a store, and who uses them.

    Raises:
        StorageError: The store cannot be read.
        RecstillError: The repository cannot be read.
    """
    caches = read_caches(store)
    contents = ((cache.id, cache.content) for cache in caches if cache.manifest is not None)
    known = {hashlib.md5(content or b"", usedforsecurity=False).hexdigest(): name for name, content in contents}
    return caches, Usage(tuple(references(root, known)))


def chosen_cache(root: Path, store: ObjectStore, caches: Sequence[CacheEntry], text: str) -> CacheEntry:
    """The cache that a person means: of a scenario of this checkout, or by the first digits of its id.

    Raises:
        DataError: There is none, or more than one.
        IntegrityError: The manifest of the scenario is damaged.
    """
    scenarios = {path.relative_to(root).parts[1]: path for path in root.glob(MANIFESTS)}
    if text not in scenarios:
        if found := cache_named(caches, text):
            return found
        known = f"Scenarios with one here: {', '.join(sorted(scenarios)) or 'none'}. "
        raise DataError(
            f"{text!r} is no scenario of this checkout that has soft labels, and no cache in {store.address} begins "
            "with it",
            f"{known}`recstill soft-labels list` shows all.",
        )
    path = scenarios[text]
    manifest = read_manifest(path.read_bytes(), str(path.relative_to(root)))
    for cache in caches:
        if cache.id == manifest.id:
            return cache
    raise DataError(
        f"the cache of {text}, {manifest.id[:SHOWN_ID]}, is not in {store.address}",
        f"Set RECSTILL_STORE to where it is, or make it again: `recstill soft-labels build {text} --force`.",
    )


def _listed(found: Sequence[Reference]) -> str:
    return ", ".join(str(one) for one in found)
