"""Soft labels by prediction point, every byte checked before it is used."""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path

import numpy as np
import torch

from components.errors import DataError, IntegrityError, StorageError
from components.soft_labels.codec import SoftLabels, codec_of
from components.soft_labels.disk_cache import DEFAULT_BYTES, DiskCache
from components.soft_labels.manifest import Manifest, Part, read_manifest
from components.soft_labels.parts import part_columns
from components.storage.contract import MissingObjectError, ObjectStore
from components.storage.object_store import open_store

DEFAULT_MEMORY_BYTES = 1 << 30
CACHE_FOLDER = Path(".recstill/soft-label-cache")
_REMEDY = "Run `recstill run SCENARIO --from soft_labels --force` (with your scenario's name)."


class SoftLabelReader:
    """Labels of any points of a cache, in any order.

    A part is fetched when one of its points is first asked for, checked against its SHA-256, and kept: in memory when
    the whole cache may lie there, else mapped from the local file, so that memory stays bounded whatever the size of
    the cache. Parts of a store that is a folder of this machine are read where they are.

    Args:
        store: Where the parts are.
        manifest: Which they are.
        cache_folder: Where fetched parts are kept.
        cache_bytes: Bound on that folder.
        memory_bytes: Largest cache that is kept in memory.
    """

    def __init__(
        self,
        store: ObjectStore,
        manifest: Manifest,
        cache_folder: Path,
        *,
        cache_bytes: int = DEFAULT_BYTES,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
    ) -> None:
        self.manifest = manifest
        self._store = store
        self._codec = codec_of(manifest.codec, manifest.outcomes)
        self._disk = DiskCache(cache_folder, cache_bytes)
        self._parts: dict[int, dict[str, np.ndarray]] = {}
        # Memory of an empty array is taken when it is written, so parts that nobody asks for cost nothing.
        self._whole = self._empty(manifest.rows) if manifest.bytes <= memory_bytes else None
        self._loaded = np.zeros(len(manifest.parts), dtype=bool)

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
            StorageError: A part is missing, or the store cannot be read.
        """
        wanted = points.cpu().numpy()
        if len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < self.rows:
            raise DataError(f"the soft labels are of points 0 to {self.rows - 1} only", _REMEDY)
        numbers = wanted // self.manifest.rows_per_part
        if self._whole is None:
            return self._codec.decode(self._gathered(wanted, numbers))
        if not self._loaded.all():
            for number in np.unique(numbers[~self._loaded[numbers]]).tolist():
                self._load(number, self._whole)
        return self._codec.decode({name: np.take(column, wanted, axis=0) for name, column in self._whole.items()})

    def _empty(self, rows: int) -> dict[str, np.ndarray]:
        return {name: np.empty((rows, *form.shape), dtype=form.dtype) for name, form in self._codec.columns.items()}

    def _load(self, number: int, whole: dict[str, np.ndarray]) -> None:
        """Copy a part to its place in memory."""
        part = self.manifest.parts[number]
        for name, column in self._columns(part, mapped=False).items():
            whole[name][part.first : part.first + part.rows] = column
        self._loaded[number] = True

    def _gathered(self, wanted: np.ndarray, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Rows from mapped parts: in any order, but part by part."""
        found = self._empty(len(wanted))
        order = np.argsort(numbers, kind="stable")
        present, begins = np.unique(numbers[order], return_index=True)
        for number, places in zip(present.tolist(), np.split(order, begins)[1:], strict=True):
            part = self.manifest.parts[number]
            if number not in self._parts:
                self._parts[number] = self._columns(part, mapped=True)
            for name, column in self._parts[number].items():
                found[name][places] = np.take(column, wanted[places] - part.first, axis=0)
        return found

    def _columns(self, part: Part, mapped: bool) -> dict[str, np.ndarray]:
        return part_columns(self._content(part, mapped), self._codec, part.rows, part.name)

    def _content(self, part: Part, mapped: bool) -> bytes | mmap.mmap:
        """The bytes of a part, checked."""
        key = self.manifest.key(part.name)
        own = self._store.local_file(key)
        content = _checked(own or self._disk.path(part.sha256), part, mapped)
        if content is not None:
            return content
        try:
            if own is not None:
                # Says whether it is missing or damaged.
                self._store.get(key, part.sha256)
            content = _checked(own or self._disk.fetch(self._store, key, part.sha256), part, mapped)
        except MissingObjectError as error:
            raise StorageError(f"soft labels are incomplete: {error.message}", _REMEDY) from None
        except IntegrityError as error:
            raise IntegrityError(f"part {part.name} of the soft labels: {error.message}", _REMEDY) from None
        if content is None:
            raise IntegrityError(f"part {part.name} was damaged on this machine just after it was fetched", _REMEDY)
        return content


def _checked(path: Path, part: Part, mapped: bool) -> bytes | mmap.mmap | None:
    """The content of a local file, None when there is none or it is not the part's."""
    try:
        with path.open("rb") as stream:
            # The file is only ever replaced whole, and a removed one stays readable as long as it is mapped.
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if mapped else stream.read()
    except (FileNotFoundError, ValueError):
        return None
    return content if hashlib.sha256(content).hexdigest() == part.sha256 else None


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
        raise DataError(f"{manifest_file} is of another data set than the one given", _REMEDY)
    return SoftLabelReader(open_store(), manifest, folder or Path.cwd() / CACHE_FOLDER)
