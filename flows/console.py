"""What a person sees: stages as they begin and end, their state, the parameters, and the results as one table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich.console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from components.errors import RecstillError
from components.storage.atomic import read_json

if TYPE_CHECKING:
    from components.tasks.answering import Answering
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

    @property
    def is_terminal(self) -> bool:
        """Whether somebody watches; else the output is a file or a pipe."""
        return self._out.is_terminal

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

    def results(self, report: Path) -> None:
        """The results of a scenario as one table, the one that ships marked, and where its report and package lie."""
        metrics, choice = _record(report / "metrics.json"), _record(report / "choice.json")
        table = Table(title=f"test: {metrics['tested']}", title_justify="left", pad_edge=False)
        table.add_column("")
        columns = _columns(metrics["measures"])
        for title, _, _ in columns:
            table.add_column(title, justify="right")
        for name, figures in sorted(
            metrics["contenders"].items(), key=lambda pair: _place(pair[0], metrics["untrained"])
        ):
            cells = [form(figures) if key in figures else "" for _, key, form in columns]
            ships = name == choice["chosen"]
            table.add_row(f"{name} ◀ ships" if ships else name, *cells, style="bold green" if ships else "")
        self._out.print(table)
        self.say(f"report:  {report / 'index.html'}")
        self.say(f"package: {report.parent / 'package'}")

    def answer(self, answering: Answering, answer: Any, *, as_json: bool) -> None:
        """What a package answers, best first, and what of the request it did not know."""
        if as_json:
            self.document(answering.record(answer))
            return
        remarks, heads, rows = answering.lines(answer)
        for remark in remarks:
            self.say(remark, style="yellow")
        table = Table(box=None, pad_edge=False)
        for head, cell in zip(heads, rows[0] if rows else heads, strict=True):
            table.add_column(head, justify="right" if cell.replace(".", "").replace("-", "").isdecimal() else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        self._out.print(table)

    def table(self, table: Table) -> None:
        """A table as it is."""
        self._out.print(table)

    def tree(self, tree: Tree) -> None:
        """A tree as it is."""
        self._out.print(tree)

    def agrees(self, question: str) -> bool:
        """Ask, and wait for a line that begins with y.

        Raises:
            RecstillError: Nobody is there to answer.
        """
        self._out.print(Text(f"{question} [y/N] "), end="", soft_wrap=True)
        answer = sys.stdin.readline()
        if not answer:
            self.say("")
            raise RecstillError("this needs a yes, and nobody is there to give it", "Give --yes to go on without it.")
        return answer.strip().lower().startswith("y")

    def document(self, record: Any) -> None:
        """A record as JSON, for scripts."""
        self._out.print(json.dumps(record, indent=2, ensure_ascii=False), soft_wrap=True, markup=False)


def _record(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = read_json(path)
    return record


def _place(name: str, untrained: Sequence[str]) -> tuple[int, str]:
    """What needs no training, then from the teacher down to what ships, as the pipeline makes them."""
    made, order = name.partition(".")[0], (*untrained, *_ORDER)
    return (order.index(made) if made in order else len(order)), name


def _difference(figures: Mapping[str, float]) -> str:
    if figures["difference_low"] == figures["difference_high"]:
        return ""
    return f"{figures['difference']:+.4f} [{figures['difference_low']:+.4f}, {figures['difference_high']:+.4f}]"


_ORDER = ("teacher", "teacher_member", "baseline", "student", "pruned")

# Title, the figure that has to be there, and how it is shown.
Column = tuple[str, str, Callable[[Mapping[str, float]], str]]
_COSTS: tuple[Column, ...] = (
    ("bytes", "bytes", lambda figures: f"{figures['bytes']:,}"),
    ("p50 ms", "p50_ms", lambda figures: f"{figures['p50_ms']:.3f}"),
    ("of the teacher's", "latency_ratio", lambda figures: f"{figures['latency_ratio']:.2f}"),
    ("rows/s at 64", "throughput", lambda figures: f"{figures['throughput']:,.0f}"),
)
_SHOWN_MEASURES = 4


def _columns(measures: Sequence[Mapping[str, Any]]) -> list[Column]:
    """The primary measure, its difference to the teacher's, some others, and the costs."""

    def of(measure: Mapping[str, Any]) -> Column:
        key, form = str(measure["key"]), ".0%" if measure["percent"] else ".4f"
        return str(measure["title"]), key, lambda figures: format(figures[key], form)

    first, *others = [measure for measure in measures if measure["group"] == measures[0]["group"]]
    difference: Column = ("to the teacher [95 %]", "difference", _difference)
    return [of(first), difference, *map(of, others[: _SHOWN_MEASURES - 1]), *_COSTS]
