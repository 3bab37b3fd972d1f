"""What an interrupted verification has found good, so that the next one goes on instead of starting anew.

A digest counts again only for the same object with the same size and time of writing, and only within a day: bytes can
rot without any of these changing, which is what a verification is there to find. A run that ends removes the journal.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import Self

JOURNAL = ".recstill/audit/verified.jsonl"
_DAY_SECONDS = 86_400.0
_LINES_AT_ONCE = 64


class Journal:
    """Lines ``[time, place, object, size, stamp, digest]``, appended as objects are found good. Threads may share it.

    Args:
        path: The file.
        resume: Count what an interrupted run has left there; else begin anew.
    """

    def __init__(self, path: Path, *, resume: bool = True) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._good: set[tuple[str, ...]] = set()
        if resume:
            self._good = _read(path)
        else:
            path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._good)

    def has(self, *entry: str) -> bool:
        """Whether an interrupted run has found this object good, as it still is."""
        return entry in self._good

    def add(self, *entry: str) -> None:
        """An object is good."""
        with self._lock:
            self._waiting.append(json.dumps([round(time.time(), 1), *entry]))
            if len(self._waiting) >= _LINES_AT_ONCE:
                self._write()

    def keep(self) -> None:
        """The run has been interrupted: write what is not written yet."""
        with self._lock:
            self._write()

    def end(self) -> None:
        """The run has ended: nothing of it counts for the next one."""
        with self._lock:
            self._waiting.clear()
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        # A journal that cannot be written costs time after an interruption and nothing else.
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.writelines(f"{line}\n" for line in self._waiting)
        self._waiting.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.end() if kind is None else self.keep()


def _read(path: Path) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    oldest = time.time() - _DAY_SECONDS
    with contextlib.suppress(OSError):
        for line in path.read_text("utf-8", errors="replace").splitlines():
            # The last line may be cut by a kill.
            with contextlib.suppress(ValueError, TypeError):
                at, *entry = json.loads(line)
                if oldest < float(at):
                    found.add(tuple(str(part) for part in entry))
    return found
