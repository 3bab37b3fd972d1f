"""The next elements of an iteration, made in the background."""

from __future__ import annotations

import atexit
import contextlib
import threading
import weakref
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")
_SECONDS_AT_EXIT = 1.0
_SECONDS_BETWEEN_LOOKS = 0.2


def prepared_ahead(elements: Iterator[T], ahead: int) -> Iterator[T]:
    """The same elements in the same order, the next few made by a thread before they are asked for.

    The thread starts with the first element that is asked for. It ends with the last, when making one fails, and when
    the iteration is given up, whether closed, forgotten or left by an exception.

    Args:
        elements: Used by that thread only.
        ahead: How many may wait, 1 at least.

    Raises:
        Exception: Whatever making an element raised, in its place.
    """
    preparation = _Preparation(elements, ahead)
    try:
        yield from preparation
    finally:
        preparation.stop()


class _Failure(NamedTuple):
    """What an element could not be made for; ``StopIteration`` when there are no more."""

    error: BaseException


class _Preparation(Generic[T]):
    """Elements on their way from the thread that makes them to the one that uses them."""

    def __init__(self, elements: Iterator[T], ahead: int) -> None:
        self._elements = elements
        self._made: SimpleQueue[T | _Failure] = SimpleQueue()
        self._room = threading.Semaphore(ahead)
        self._stopped = False
        # A daemon: an element that never comes may not keep the process from ending.
        self._thread = threading.Thread(target=self._make, name="prepared ahead", daemon=True)

    def __iter__(self) -> Iterator[T]:
        self._thread.start()
        _at_work.add(self)
        while True:
            element = self._next()
            if isinstance(element, _Failure):
                if isinstance(element.error, StopIteration):
                    return
                raise element.error
            self._room.release()
            yield element

    def _next(self) -> T | _Failure:
        while True:
            # Ctrl-C may reach the process in another thread, and would go unnoticed in an endless wait.
            with contextlib.suppress(Empty):
                return self._made.get(timeout=_SECONDS_BETWEEN_LOOKS)

    def stop(self, seconds: float = 0.0) -> None:
        """Make no more.

        Args:
            seconds: How long to wait for the element that is being made.
        """
        self._stopped = True
        self._room.release()
        if seconds and self._thread.is_alive():
            self._thread.join(seconds)

    def _make(self) -> None:
        try:
            while True:
                self._room.acquire()
                if self._stopped:
                    return
                self._made.put(next(self._elements))
        except BaseException as error:
            self._made.put(_Failure(error))


_at_work: weakref.WeakSet[_Preparation] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    # A thread that the interpreter's end finds inside torch would take the process down with a signal.
    for preparation in list(_at_work):
        preparation.stop(_SECONDS_AT_EXIT)
