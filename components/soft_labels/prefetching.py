"""Parts brought to this machine before anybody asks for them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from components.soft_labels.disk_cache import DiskCache
from components.soft_labels.manifest import Part
from components.storage.contract import ObjectStore

_THREADS = 4
# A failure that is older than this may be over: the store is asked again.
_SECONDS_OF_FAILURE = 10.0
_SECONDS_UNTIL_NEXT_LOOK = 0.05
_SECONDS_BETWEEN_LOOKS = 0.2


class Prefetch:
    """A few threads that bring parts into the disk cache, in order, as many as it may hold.

    The first part is fetched by itself, and the first failure ends it all: a store that does not answer, or refuses
    the credentials, is not asked again and again.

    Args:
        disk: Where the parts go.
        store: Where they are.
        key: Of a part, in the store.
        parts: Which are wanted, in this order.
    """

    def __init__(self, disk: DiskCache, store: ObjectStore, key: Callable[[str], str], parts: Sequence[Part]) -> None:
        self._disk, self._store, self._key = disk, store, key
        self._left = deque(_within(parts, disk.max_bytes))
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._under_way: dict[int, threading.Event] = {}
        self._failures: dict[int, tuple[float, Exception]] = {}
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin, once."""
        with self._lock:
            if not self._threads:
                self._add_thread(self._begin)

    def stop(self) -> None:
        """Begin no other part. Returns at once; what is under way ends with its part, or with the process."""
        self._stopped.set()

    def wait_for(self, part: Part) -> None:
        """Until the part is no longer under way, if it is.

        Raises:
            Exception: What has just kept it from coming; see :meth:`DiskCache.fetch`. Only once:
                whoever asks again may try again.
        """
        with self._lock:
            arrival = self._under_way.get(part.number)
        # Ctrl-C may reach the process in another thread, and would go unnoticed in an endless wait.
        while arrival is not None and not arrival.wait(_SECONDS_BETWEEN_LOOKS):
            pass
        when, failure = self._failures.pop(part.number, (0.0, None))
        if failure is not None and time.monotonic() - when < _SECONDS_OF_FAILURE:
            raise failure

    def _begin(self) -> None:
        if self._fetch_next():
            with self._lock:
                for _ in range(_THREADS - 1):
                    self._add_thread(self._go_on)
            self._go_on()

    def _go_on(self) -> None:
        while self._fetch_next():
            pass

    def _fetch_next(self) -> bool:
        arrival = threading.Event()
        with self._lock:
            if self._stopped.is_set() or not self._left:
                return False
            part = self._left.popleft()
            self._under_way[part.number] = arrival
        try:
            here = self._disk.fetch_if_free(self._store, self._key(part.name), part)
        except Exception as error:
            here = True
            self._failures[part.number] = (time.monotonic(), error)
            self._stopped.set()
        finally:
            del self._under_way[part.number]
            arrival.set()
        if not here:
            # Another process is bringing it; looked at once more at the end.
            self._stopped.wait(_SECONDS_UNTIL_NEXT_LOOK)
            self._left.append(part)
        return True

    def _add_thread(self, work: Callable[[], None]) -> None:
        # A daemon: no request that hangs may keep the process from ending.
        thread = threading.Thread(target=work, name="soft-label prefetch", daemon=True)
        self._threads.append(thread)
        thread.start()


def _within(parts: Sequence[Part], room: int) -> list[Part]:
    """The first parts, as many as there is room for."""
    chosen = []
    for part in parts:
        room -= part.content_bytes
        if room < 0:
            break
        chosen.append(part)
    return chosen
