"""How far a verification is: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import rich.console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

_SECONDS_BETWEEN_LINES = 10.0


class ByteProgress:
    """Shows bytes done of all, on stderr, so that what is printed can be read by a script.

    Args:
        what: What is being done.
        show: False for silence.
    """

    def __init__(self, what: str, *, show: bool = True) -> None:
        self._what, self._show = what, show
        self._console = rich.console.Console(highlight=False, stderr=True)
        self._bar = Progress(
            TextColumn(what),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not (show and self._console.is_terminal),
        )
        self._total = self._done = self._reused = 0
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, objects: int, size: int) -> Callable[[int, bool], None]:
        """There are so many objects and bytes; what is returned counts them."""
        self._total = size
        self._started = self._last_line = time.monotonic()
        task = self._bar.add_task(f"{self._what} {objects} objects", total=size)

        def advance(done: int, reused: bool) -> None:
            self._done += done
            self._reused += done if reused else 0
            self._bar.update(task, advance=done)
            self._tell()

        return advance

    def _tell(self) -> None:
        now = time.monotonic()
        if not self._show or self._console.is_terminal or now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        # What an interrupted run has read came for nothing: only the rest says how long the rest will take.
        rate = (self._done - self._reused) / max(now - self._started, 1e-6)
        left = f", {(self._total - self._done) / rate:.0f} s left" if rate > 0 else ""
        done, total = (f"{size / 2**20:,.0f}" for size in (self._done, self._total))
        self._console.print(f"{self._what}: {done} of {total} MiB, {rate / 2**20:,.0f} MiB/s{left}")
