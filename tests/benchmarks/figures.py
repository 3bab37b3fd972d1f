"""What a benchmark prints."""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """One line of the output: an estimate, and its 95 % interval where there is one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return f"{self.name}={self.value:.4f}"

    def told(self) -> str:
        """With the interval, for people."""
        return f"{self.name:<32} {self.value:.4f}" + ("" if self.low is None else f" [{self.low:.4f}, {self.high:.4f}]")
