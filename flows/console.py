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
    from components.serving.predictor import Recommendations
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
        table = Table(title="test events, full ranking, seen items left out", title_justify="left", pad_edge=False)
        table.add_column("")
        for title, _, _ in _COLUMNS:
            table.add_column(title, justify="right")
        for name, figures in sorted(metrics["contenders"].items(), key=lambda pair: _place(pair[0])):
            cells = [form(figures) if key in figures else "" for _, key, form in _COLUMNS]
            ships = name == choice["chosen"]
            table.add_row(f"{name} ◀ ships" if ships else name, *cells, style="bold green" if ships else "")
        self._out.print(table)
        self.say(f"report:  {report / 'index.html'}")
        self.say(f"package: {report.parent / 'package'}")

    def recommendations(self, answer: Recommendations, *, as_json: bool) -> None:
        """Recommended items with their titles, best first, and what of the history was not known."""
        if as_json:
            items = [{"item": one.id, "title": one.title, "score": one.score} for one in answer.items]
            unknown = list(answer.unknown)
            self.document({"recommendations": items, "unknown": unknown, "popular": answer.from_popularity})
            return
        if answer.unknown:
            self.say(f"not in the catalogue, left out: {', '.join(answer.unknown)}", style="yellow")
        if answer.from_popularity:
            self.say("no known item in the history: these are the most popular ones", style="yellow")
        table = Table(box=None, pad_edge=False)
        table.add_column("item", justify="right")
        table.add_column("score", justify="right")
        table.add_column("title")
        for one in answer.items:
            table.add_row(one.id, f"{one.score:.3f}", Text(one.title or ""))
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


def _place(name: str) -> tuple[int, str]:
    """From the teacher down to what ships, as the pipeline makes them."""
    made = name.partition(".")[0]
    return (_ORDER.index(made) if made in _ORDER else len(_ORDER)), name


def _difference(figures: Mapping[str, float]) -> str:
    if figures["difference_low"] == figures["difference_high"]:
        return ""
    return f"{figures['difference']:+.4f} [{figures['difference_low']:+.4f}, {figures['difference_high']:+.4f}]"


_ORDER = ("popularity", "item_knn", "teacher", "teacher_member", "baseline", "student", "pruned")

# Title, the figure that has to be there, and how it is shown.
_COLUMNS: tuple[tuple[str, str, Callable[[Mapping[str, float]], str]], ...] = (
    ("NDCG@10", "ndcg10", lambda figures: f"{figures['ndcg10']:.4f}"),
    ("to the teacher [95 %]", "difference", _difference),
    ("Recall@10", "recall10", lambda figures: f"{figures['recall10']:.4f}"),
    ("coverage", "coverage10", lambda figures: f"{figures['coverage10']:.0%}"),
    ("bytes", "bytes", lambda figures: f"{figures['bytes']:,}"),
    ("p50 ms", "p50_ms", lambda figures: f"{figures['p50_ms']:.3f}"),
    ("of the teacher's", "latency_ratio", lambda figures: f"{figures['latency_ratio']:.2f}"),
    ("rows/s at 64", "throughput", lambda figures: f"{figures['throughput']:,.0f}"),
)
