"""How far the scoring is: a bar with rates on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

_SECONDS_BETWEEN_LINES = 10.0


class RowProgress:
    """Shows rows done of ``rows``, rows a second and the time left. Any number of threads may count rows.

    Args:
        rows: How many there are.
        what: What is being done with them.
        show: False for silence.
        unit: What they are, in plural.
    """

    def __init__(self, rows: int, what: str, show: bool = True, unit: str = "rows") -> None:
        self._rows, self._what, self._show, self._unit = rows, what, show, unit
        self._console = Console(highlight=False)
        self._done = self._reused = 0
        self._counting = threading.Lock()
        self._started = self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            console=self._console,
            disable=not (show and self._console.is_terminal),
        )
        self._task = self._bar.add_task(what, total=rows, rate="")

    def __enter__(self) -> RowProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, rows: int, reused: bool = False) -> None:
        """Count rows; ``reused`` ones cost nothing and leave the rate alone.

        As long as there are none, 0 rows start the clock: what workers take to come up is not their rate.
        """
        with self._counting:
            if self._done == rows == 0:
                self._started = time.monotonic()
                return
            self._done += rows
            self._reused += rows if reused else 0
            self._tell()

    def _tell(self) -> None:
        now = time.monotonic()
        rate = (self._done - self._reused) / max(now - self._started, 1e-6)
        # Rows that were there already came for nothing: only the others say how long the rest will take.
        told = f"{rate:,.{0 if rate >= 10 else 1}f} {self._unit}/s" if rate > 0 else ""
        told += f", {(self._rows - self._done) / rate:.0f} s left" if told else ""
        self._bar.update(self._task, completed=self._done, rate=told)
        due = now - self._last_line >= _SECONDS_BETWEEN_LINES
        if self._show and not self._console.is_terminal and due and told:
            self._last_line = now
            self._console.print(f"{self._what}: {self._done:,} of {self._rows:,} {self._unit}, {told}")
