"""Soft labels by prediction point, every byte checked before it is used."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from components.errors import DataError, IntegrityError, SettingsError
from components.soft_labels.codecs.building import codec_of
from components.soft_labels.disk_cache import DEFAULT_BYTES, DiskCache
from components.soft_labels.labels import SoftLabels
from components.soft_labels.manifest import Manifest, read_manifest
from components.soft_labels.open_parts import REMEDY, OpenParts
from components.storage.contract import ObjectStore
from components.storage.object_store import open_store

DEFAULT_RESIDENT_BYTES = 256 << 20
CACHE_FOLDER = Path(".recstill/soft-label-cache")


class SoftLabelReader:
    """Labels of any points of a cache, in any order, in memory that does not depend on the size of the cache.

    A part is fetched when one of its points is first asked for, or before that (:meth:`prefetch`), and used where it
    lies: mapped from a file of the disk cache, or from the store's own when that is a folder of this machine and the
    part is not compressed. Its digest is checked on the way from the store, when it is mapped, and when its file has
    been touched since; one in the disk cache that is wrong is fetched again.

    Threads may share a reader. In another process, spawned or forked, it opens everything anew.

    Args:
        store: Where the parts are.
        manifest: Which they are.
        cache_folder: Where fetched parts are kept.
        cache_bytes: Bound on that folder. When it is below the size of the cache, parts come and go: labels in random
            order then mean fetching without end.
        resident_bytes: Bound on the pages of mapped files that count as this process's memory.

    Raises:
        IntegrityError: The manifest names a codec that is not known.
    """

    def __init__(
        self,
        store: ObjectStore,
        manifest: Manifest,
        cache_folder: Path,
        *,
        cache_bytes: int = DEFAULT_BYTES,
        resident_bytes: int = DEFAULT_RESIDENT_BYTES,
    ) -> None:
        self.manifest = manifest
        self._store, self._folder = store, cache_folder
        self._cache_bytes, self._resident_bytes = cache_bytes, resident_bytes
        try:
            self._codec = codec_of(manifest.codec, manifest.outcomes)
        except (SettingsError, KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"cache {manifest.id[:12]}: its codec is not known: {error!r}", REMEDY) from None
        self._begin()

    @property
    def rows(self) -> int:
        """P, the number of points."""
        return self.manifest.rows

    @property
    def outcomes(self) -> int:
        """K."""
        return self.manifest.outcomes

    def labels(self, points: torch.Tensor) -> SoftLabels:
        """The teacher's distribution at some points, at temperature 1.

        Args:
            points: ``(N,)`` int64.

        Returns:
            Labels of N rows, in the order of ``points``, on the CPU.

        Raises:
            DataError: A point has no label.
            IntegrityError: A part in the store is damaged.
            StorageError: A part is missing, the store cannot be read, or the disk is full.
        """
        wanted = points.cpu().numpy()
        if len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < self.rows:
            raise DataError(f"the soft labels are of points 0 to {self.rows - 1} only", REMEDY)
        return self._codec.decode(self._here().gathered(wanted))

    def prefetch(self) -> None:
        """Begin to bring the parts that are not on this machine yet, in the background, in order.

        No more than the disk cache may hold. What fails is raised when the part is asked for.
        """
        self._here().prefetch()

    def close(self) -> None:
        """Stop fetching and let go of all files, without waiting for anything; the next use opens them again."""
        self._here().close()
        self._begin()

    def __enter__(self) -> SoftLabelReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_parts", "_process")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def _begin(self) -> None:
        disk = DiskCache(self._folder, self._cache_bytes)
        self._parts = OpenParts(self._store, self.manifest, self._codec, disk, self._resident_bytes)
        self._process = os.getpid()

    def _here(self) -> OpenParts:
        """What this process has open."""
        if self._process != os.getpid():
            # A fork: a lock that another thread held at that moment would stay held for ever.
            self._begin()
        return self._parts


def open_labels(manifest_file: Path, dataset_digest: str, folder: Path | None = None) -> SoftLabelReader:
    """A reader of the cache that ``soft_labels/manifest.json`` describes, from the store in the environment.

    Args:
        manifest_file: What the stage ``soft_labels`` wrote.
        dataset_digest: Of the data set whose points will be asked for.
        folder: Where fetched parts are kept; ``.recstill/soft-label-cache`` of the working directory without it.

    Raises:
        DataError: There is no such file, or the labels are of another data set.
        IntegrityError: The manifest is damaged.
        StorageError: The store's address is not valid.
    """
    try:
        manifest = read_manifest(manifest_file.read_bytes(), str(manifest_file))
    except FileNotFoundError:
        raise DataError(f"{manifest_file} is missing", "Run the stage `soft_labels`: `recstill run`.") from None
    if manifest.dataset != dataset_digest:
        raise DataError(f"{manifest_file} is of another data set than the one given", REMEDY)
    return SoftLabelReader(open_store(), manifest, folder or Path.cwd() / CACHE_FOLDER)
