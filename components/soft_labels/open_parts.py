"""The parts of a cache that a process has open: few, checked, and little of them in memory."""

from __future__ import annotations

import resource
import threading
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO

import numpy as np

from components.errors import IntegrityError, StorageError
from components.soft_labels.codecs.base import Codec
from components.soft_labels.disk_cache import DiskCache
from components.soft_labels.manifest import Manifest, Part
from components.soft_labels.mapped_part import ContentError, FileState, MappedPart
from components.soft_labels.prefetching import Prefetch
from components.storage.contract import MissingObjectError, ObjectStore

REMEDY = "Run `recstill run SCENARIO --from soft_labels --force` (with your scenario's name)."
_MOST_OPEN = 1024
_ATTEMPTS = 3


class OpenParts:
    """Rows from wherever their parts lie, for one process; threads may share it.

    Args:
        store: Where the parts are.
        manifest: Which they are.
        codec: What wrote them.
        disk: Where fetched ones are kept.
        resident_bytes: Bound on the pages of mapped files that count as this process's memory.
    """

    def __init__(
        self, store: ObjectStore, manifest: Manifest, codec: Codec, disk: DiskCache, resident_bytes: int
    ) -> None:
        self._store, self._manifest, self._codec, self._disk = store, manifest, codec, disk
        self._resident_bytes = resident_bytes
        self._open: OrderedDict[int, MappedPart] = OrderedDict()
        self._seen: dict[int, FileState] = {}
        # An open part takes two of the file handles that a process may have, half of which are left to others.
        self._most_open = max(1, min(_MOST_OPEN, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4))
        self._touched = self._fetched_bytes = 0
        self._lock = threading.Lock()
        self._closed = False
        self._prefetch: Prefetch | None = None

    def gathered(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """The stored arrays of some points, N rows each, in their order.

        Args:
            points: ``(N,)`` int64, all of the cache.

        Raises:
            IntegrityError: A part in the store is damaged.
            StorageError: A part is missing, the store cannot be read, or the disk is full.
        """
        try:
            with self._lock:
                return self._gathered(points)
        finally:
            if self._closed:
                self.close()

    def prefetch(self) -> None:
        """Begin to bring the parts that are not on this machine yet, once."""
        with self._lock:
            if self._prefetch is not None:
                return
            away = [part for part in self._manifest.parts if self._own_file(part) is None]
            self._prefetch = Prefetch(self._disk, self._store, self._manifest.key, away)
            # Nobody needs what would come for parts that are no more.
            weakref.finalize(self, self._prefetch.stop)
            self._prefetch.start()

    def close(self) -> None:
        """Fetch no further part and let go of all files; a thread that is still gathering does that when it ends."""
        self._closed = True
        if self._prefetch is not None:
            self._prefetch.stop()
        if self._lock.acquire(blocking=False):
            try:
                for number in list(self._open):
                    self._drop(number)
            finally:
                self._lock.release()

    def _gathered(self, points: np.ndarray) -> dict[str, np.ndarray]:
        numbers = points // self._manifest.rows_per_part
        order = np.argsort(numbers, kind="stable")
        present, begins = np.unique(numbers[order], return_index=True)
        ends = [*begins.tolist(), len(points)][1:]
        by_part = points[order]
        found = {
            name: np.empty((len(points), *form.shape), dtype=form.dtype) for name, form in self._codec.columns.items()
        }
        for number, begin, end in zip(present.tolist(), begins.tolist(), ends, strict=True):
            part = self._manifest.parts[number]
            self._take(part, by_part[begin:end] - part.first, found, slice(begin, end))
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return {name: np.take(column, places, axis=0) for name, column in found.items()}

    def _take(self, part: Part, rows: np.ndarray, found: dict[str, np.ndarray], place: slice) -> None:
        for _ in range(_ATTEMPTS):
            mapped = self._mapped(part)
            # A part may be larger than what may be in memory of all.
            step = len(rows) if mapped.bytes <= self._resident_bytes else mapped.rows_within(self._resident_bytes)
            for begin in range(0, len(rows), step):
                end = min(begin + step, len(rows))
                self._touched += mapped.take(rows[begin:end], found, slice(place.start + begin, place.start + end))
                if self._touched > self._resident_bytes:
                    for other in self._open.values():
                        self._touched -= other.release()
            if mapped.is_sound():
                return
        raise IntegrityError(f"part {part.name} is being changed on this machine while it is read", REMEDY)

    def _mapped(self, part: Part) -> MappedPart:
        """The part, open and sound, and the most recently used of all that are."""
        mapped = self._open.get(part.number)
        if mapped is not None:
            if mapped.is_sound():
                self._open.move_to_end(part.number)
                return mapped
            self._drop(part.number)
        mapped = self._found(part)
        self._open[part.number] = mapped
        self._fetched_bytes += mapped.bytes if self._own_file(part) is None else 0
        # A file that is open takes room on the disk even when the disk cache has removed it.
        while len(self._open) > self._most_open or (self._fetched_bytes > self._disk.max_bytes and len(self._open) > 1):
            self._drop(next(iter(self._open)))
        return mapped

    def _drop(self, number: int) -> None:
        mapped = self._open.pop(number)
        self._touched -= mapped.touched
        self._fetched_bytes -= mapped.bytes if self._own_file(self._manifest.parts[number]) is None else 0
        self._seen.pop(number, None)
        if mapped.seen is not None:
            self._seen[number] = mapped.seen
        mapped.close()

    def _found(self, part: Part) -> MappedPart:
        """Map a part from where it is."""
        key, own = self._manifest.key(part.name), self._own_file(part)
        try:
            if own is not None:
                return self._from_own_file(part, key, own)
            stream = self._disk.opened(part)
            if stream is None and self._prefetch is not None:
                self._prefetch.wait_for(part)
                stream = self._disk.opened(part)
            mapped = None if stream is None else self._checked(stream, part)
            mapped = mapped or self._checked(self._disk.fetch(self._store, key, part), part)
        except MissingObjectError as error:
            raise StorageError(f"soft labels are incomplete: {error.message}", REMEDY) from None
        except IntegrityError as error:
            raise IntegrityError(f"part {part.name} of the soft labels: {error.message}", REMEDY) from None
        if mapped is None:
            raise IntegrityError(f"part {part.name} was damaged on this machine just after it was fetched", REMEDY)
        return mapped

    def _from_own_file(self, part: Part, key: str, path: Path) -> MappedPart:
        for _ in range(_ATTEMPTS):
            try:
                mapped = self._checked(path.open("rb", buffering=0), part)
            except (FileNotFoundError, NotADirectoryError):
                mapped = None
            except OSError as error:
                raise StorageError(f"{path} cannot be read: {error.strerror}", "Check its permissions.") from None
            if mapped is not None:
                return mapped
            # Says whether it is missing or damaged; if neither, somebody has just put it right.
            self._store.get(key, part.sha256)
        raise IntegrityError(f"{path} is being changed while it is read")

    def _checked(self, stream: BinaryIO, part: Part) -> MappedPart | None:
        """The part, None when the file does not hold it."""
        try:
            mapped = MappedPart(stream, part, self._codec, self._seen.get(part.number))
        except ContentError:
            return None
        self._touched += mapped.touched
        return mapped

    def _own_file(self, part: Part) -> Path | None:
        """The store's own file of a part, when it can be used where it is."""
        return None if part.compressed else self._store.local_file(self._manifest.key(part.name))
