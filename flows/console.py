"""What a person sees: stages as they begin and end, their state, the parameters, and the results as one table."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import rich.console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from flows.graph import Stage, StageResult
    from flows.params import Parameter

_MARKS = {"ran": ("✓", "green"), "cached": ("=", "cyan"), "skipped": ("-", "yellow")}
# Wide enough for the widest table here when the output is a file or a pipe, which has no width of its own.
_PIPE_WIDTH = 160


class Console:
    """Lines and tables on the terminal; plain text when the output is a file or a pipe."""

    def __init__(self) -> None:
        width = None if sys.stdout.isatty() else _PIPE_WIDTH
        self._out = rich.console.Console(highlight=False, width=width)

    def say(self, message: str, style: str = "") -> None:
        """One line; ``message`` is taken as it is, without markup."""
        self._out.print(Text(message, style=style), soft_wrap=True)

    def begins(self, address: str, description: str) -> None:
        """A stage starts."""
        self._out.print(Text.assemble(("▶ ", "bold"), (address, "bold"), f"  {description}"), soft_wrap=True)

    def ends(self, result: StageResult) -> None:
        """A stage has ended well."""
        mark, colour = _MARKS[result.outcome]
        self.say(f"{mark} {result.address}  {result.outcome}  {result.seconds:.1f} s", style=colour)

    def fails(self, address: str) -> None:
        """A stage has ended with an error, which is told once, at the end of the run."""
        self.say(f"✗ {address}  failed", style="bold red")

    def summary(self, results: Sequence[StageResult], seconds: float) -> None:
        """What ran, what was cached, what was skipped, and how long all of it took."""
        counts = {outcome: sum(result.outcome == outcome for result in results) for outcome in _MARKS}
        parts = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        self.say(f"\n{parts}; {seconds:.1f} s in all", style="bold")

    def state(self, stages: Sequence[Stage], pending: Mapping[str, Sequence[str]]) -> None:
        """Whether each stage is up to date, and if not, what has changed."""
        table = Table(box=None, pad_edge=False)
        for title in ("stage", "state", "because"):
            table.add_column(title, overflow="fold")
        for stage in stages:
            reasons = pending.get(stage.address)
            state = Text("to run", "yellow") if reasons else Text("up to date", "green")
            table.add_row(Text(stage.address), state, Text("; ".join(reasons or ())))
        self._out.print(table)

    def parameters(self, parameters: Sequence[Parameter]) -> None:
        """Every parameter with its value, type and meaning."""
        table = Table(box=None, pad_edge=False, row_styles=("", "dim"))
        for title in ("key below scenarios.<name>.", "value", "type", "meaning"):
            table.add_column(title, overflow="fold")
        for parameter in parameters:
            table.add_row(*(Text(word) for word in (parameter.key, parameter.value, parameter.type, parameter.meaning)))
        self._out.print(table)

    def document(self, record: Any) -> None:
        """A record as JSON, for scripts."""
        self._out.print(json.dumps(record, indent=2, ensure_ascii=False), soft_wrap=True, markup=False)
