"""One part of a cache on this machine: mapped from its file, and known to be what was written."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import time
from typing import BinaryIO, NamedTuple

import numpy as np

from components.soft_labels.codecs.base import Codec
from components.soft_labels.manifest import Part
from components.soft_labels.parts import part_columns

_CHUNK = 1 << 20
# What one access brings into memory at most: Linux maps the cached neighbours of a page with it.
_AROUND = 1 << 16
# Two writes within one tick of the file system's clock cannot be told apart by their times.
_TICK_NS = 50_000_000


class FileState(NamedTuple):
    """Which file it is, its size, and when its content and its record were changed last (nanoseconds)."""

    device: int
    number: int
    bytes: int
    written_ns: int
    changed_ns: int


class ContentError(Exception):
    """A file on this machine is not the part it should be; the part can be fetched again."""


class MappedPart:
    """Rows of a part, copied from its file.

    The content is read through and its digest compared when the part is first opened, and again whenever size or
    times of the file show that somebody has touched it since. What changes neither (a disk that returns other bits
    than it was given, a program that writes through a mapping on a file system that keeps no times of that) is found
    by the next process that opens it.

    Args:
        stream: The file, which this object closes. It may lose its name afterwards.
        part: Its record.
        codec: What wrote it.
        seen: The file in which this process has found the part before, as ``seen`` of an earlier object says: if it
            is the same and nobody has touched it, it is not read through again.

    Attributes:
        seen: The file as it was when it was read through; None when it had been written so shortly before that its
            times would not show another write.
        touched: Bytes of the file that count as this process's memory, at most.

    Raises:
        ContentError: The file does not hold the part's content; the stream is closed.
        IntegrityError: The content is the one recorded, but not that of this codec.
    """

    def __init__(self, stream: BinaryIO, part: Part, codec: Codec, seen: FileState | None = None) -> None:
        self._stream, self._part = stream, part
        self.seen = seen
        self.touched = min(_AROUND, part.content_bytes)
        try:
            if not self.is_sound():
                raise ContentError
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            self._columns = part_columns(self._map, codec, part.rows, part.name)
        except ValueError:
            stream.close()
            # Cut to nothing since it was read.
            raise ContentError from None
        except BaseException:
            stream.close()
            raise
        self._row_reach = sum(_AROUND + column.nbytes // part.rows for column in self._columns.values())

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self._part.content_bytes

    def rows_within(self, resident_bytes: int) -> int:
        """How many rows, wherever they are, bring no more than this into memory; 1 at least."""
        return max(1, resident_bytes // self._row_reach)

    def is_sound(self) -> bool:
        """Whether the file still holds the part: nobody has touched it, or it was read through again just now.

        Asked before rows are taken, it keeps the process from touching what a cut file no longer has; asked after,
        it tells whether the rows can be used.
        """
        return (self.seen is not None and self.seen == _state(self._stream)) or self._read_through()

    def take(self, rows: np.ndarray, found: dict[str, np.ndarray], place: slice) -> int:
        """Copy rows.

        Args:
            rows: ``(n,)`` int64, counted from the part's first.
            found: Arrays by name, to be written at ``place``, which is n rows long.
            place: Where in ``found``.

        Returns:
            By how much ``touched`` has grown.
        """
        for name, column in self._columns.items():
            # "clip" does without the copy that numpy makes to undo a write; rows are within the part anyway.
            np.take(column, rows, axis=0, out=found[name][place], mode="clip")
        before = self.touched
        self.touched = min(self.bytes, before + len(rows) * self._row_reach)
        return self.touched - before

    def release(self) -> int:
        """Give back the memory that the file's pages take in this process; they are mapped again when needed.

        Returns:
            How much, at most.
        """
        before = self.touched
        if before:
            self._map.madvise(mmap.MADV_DONTNEED)
        self.touched = 0
        return before

    def close(self) -> None:
        """Let go of the file."""
        self._columns = {}
        # A view that somebody still holds keeps the mapping alive until it goes.
        with contextlib.suppress(BufferError):
            self._map.close()
        self._stream.close()

    def _read_through(self) -> bool:
        """Whether the content has its digest. Read, not through the mapping: a file may be cut meanwhile."""
        before = _state(self._stream)
        settled = abs(time.time_ns() - before.changed_ns) > _TICK_NS
        try:
            sound = before.bytes == self._part.content_bytes and self._digest() == self._part.content_sha256
        except OSError:
            # The disk cannot read it any more.
            sound = False
        self.seen = before if sound and settled and before == _state(self._stream) else None
        return sound

    def _digest(self) -> str:
        digest, place = hashlib.sha256(), 0
        while chunk := os.pread(self._stream.fileno(), _CHUNK, place):
            digest.update(chunk)
            place += len(chunk)
        return digest.hexdigest()


def _state(stream: BinaryIO) -> FileState:
    state = os.fstat(stream.fileno())
    return FileState(state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
