"""How a search goes: a line a trial with the best so far, and a bar with the time left where somebody watches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import rich.console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from components.evaluation.formats import seconds as spoken
from components.evaluation.frontier import Point
from flows.tuning.study import Tried

_MARKS = {"complete": ("✓", "green"), "pruned": ("~", "yellow"), "costly": ("-", "yellow"), "failed": ("✗", "bold red")}
_WIDTH = 160


class SearchProgress:
    """Counts trials to ``trials``; any number of threads may tell.

    Args:
        trials: How many there are to be.
        done: How many there were before.
        workers: How many run at once.
        own: The recipe of the scenario: lines tell what a trial has otherwise.
        title: Of the measure of quality.
    """

    def __init__(self, trials: int, done: int, workers: int, own: Mapping[str, Any], title: Callable[[], str]) -> None:
        self._trials, self._done, self._workers, self._own, self._title = trials, done, workers, own, title
        self._seconds: list[float] = []
        self._running: dict[int, str] = {}
        self._telling = threading.Lock()
        self._console = rich.console.Console(highlight=False)
        if not self._console.is_terminal:
            self._console = rich.console.Console(highlight=False, width=_WIDTH)
        self._bar = Progress(
            TextColumn("trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("trials", total=trials, completed=done, words="")

    def __enter__(self) -> SearchProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begins(self, number: int, recipe: Mapping[str, Any]) -> None:
        """A trial starts."""
        others = {key: value for key, value in recipe.items() if value != self._own.get(key)}
        with self._telling:
            self._running[number] = "starts"
            self._say(f"▶ trial {number}  {recipe_words(others) or 'the recipe as it is'}")
            self._show()

    def epoch(self, number: int, step: int, steps: int, validation: float) -> None:
        """A trial has trained another epoch."""
        with self._telling:
            self._running[number] = f"{step}/{steps} {validation:.4f}"
            self._show()

    def ends(self, tried: Tried, best: Point | None) -> None:
        """A trial has ended; the best point of all so far."""
        mark, colour = _MARKS[tried.state]
        with self._telling:
            self._running.pop(tried.number, None)
            self._done += tried.counts
            self._seconds.append(tried.seconds)
            told = tried.note or _best_words(tried, self._title())
            self._say(f"{mark} trial {tried.number}  {told}  {tried.seconds:.1f} s", colour)
            kept = "none yet" if best is None else f"trial {best.trial}, {point_words(best, self._title())}"
            self._say(f"  {self._done} of {self._trials}; meets all limits best: {kept}; {self._left()}", "dim")
            self._show()

    def exhausted(self, draws: int) -> None:
        """So many draws came to no recipe that was not tried: no other one is drawn."""
        with self._telling:
            self._say(
                f"- {draws} draws came to no recipe that was not tried: the space seems to have no further one, and no "
                "other is drawn; widen `tune.space` in params.yaml for more",
                "yellow",
            )

    def _left(self) -> str:
        rounds = (self._trials - self._done) / self._workers
        return f"about {spoken(rounds * sum(self._seconds) / len(self._seconds))} left"

    def _show(self) -> None:
        words = ", ".join(f"{number}: {state}" for number, state in sorted(self._running.items()))
        self._bar.update(self._task, completed=self._done, words=words)

    def _say(self, message: str, style: str = "") -> None:
        self._bar.console.print(Text(message, style=style), soft_wrap=True)


def recipe_words(recipe: Mapping[str, Any]) -> str:
    """``network.dim 24, pruning.ffn_ratio 0.5``."""
    return ", ".join(f"{key.removeprefix('student.')} {value_words(value)}" for key, value in recipe.items())


def value_words(value: Any) -> str:
    """A value of a recipe in short: of a section or a list of losses, their kinds and weights."""
    if isinstance(value, dict):
        if "kind" in value:
            return f"{value['kind']} x {value['weight']:g}" if "weight" in value else str(value["kind"])
        if set(value) == {"losses"}:
            return value_words(value["losses"])
        return "{" + ", ".join(f"{key} {value_words(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        joint = " + " if value and isinstance(value[0], dict) else ", "
        return "[" + joint.join(map(value_words, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def point_words(point: Point, title: str) -> str:
    """``int8_table8: NDCG@10 0.1201 (98.4 % of the teacher), 35,123 bytes, p95 0.19 ms``."""
    figures = point.figures
    parts = [f"{figures['bytes']:,} bytes"]
    if point.judged:
        share = f" ({100 * figures['retention']:.1f} % of the teacher)" if "retention" in figures else ""
        parts.insert(0, f"{title} {point.quality:.4f}{share}")
    if "p95_ms" in figures:
        parts.append(f"p95 {figures['p95_ms']:.3g} ms")
    return f"{point.form}: {', '.join(parts)}"


def _best_words(tried: Tried, title: str) -> str:
    judged = {form: figures for form, figures in tried.points.items() if "quality" in figures}
    if not judged:
        return "nothing was measured"
    qualities = [figures["quality"] for figures in judged.values()]
    sizes = [figures["bytes"] for figures in judged.values()]
    return (
        f"{title} {min(qualities):.4f} to {max(qualities):.4f}, {min(sizes):,} to {max(sizes):,} bytes "
        f"in {len(judged)} variants"
    )
