"""The chance that something comes of a row: an item, a user, what is known of both, and what came before."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy.special import expit

from components.data.features import Features, in_column_order, text_of
from components.data.rows import FEATURE
from components.errors import DataError
from components.settings.base import nearest
from components.tasks.answering import Ranking, Read, RequestForm, RequestLimits

ITEM, USER, HISTORY = "item", "user", "history"
VALUES_FILE = "values.parquet"
"""The values of all features, and the row of the table of each; in a package, beside the items."""
_SHOWN = 10
_LEAST = 1e-9
_HISTORIES = 64


class Question(NamedTuple):
    """A checked request.

    Attributes:
        columns: Text of each column that was sent, None where it was empty.
        history: Item and outcome of each event, oldest first.
    """

    columns: dict[str, str | None]
    history: tuple[tuple[str, int], ...]


class Row(NamedTuple):
    """A question as the model reads it.

    Attributes:
        categories, numbers: One row.
        history, happened: Newest event first.
        unknown: What it has not met, as ``feature=value``.
    """

    categories: np.ndarray
    numbers: np.ndarray
    history: np.ndarray
    happened: np.ndarray
    unknown: tuple[str, ...]


class Answer(NamedTuple):
    """The answer to one request.

    Attributes:
        probability: Of a yes.
        unknown: See :class:`Row`.
        history_used: Events that were read.
    """

    probability: float
    unknown: tuple[str, ...]
    history_used: int


class Telling(Ranking):
    """Tells how likely a yes is."""

    endpoint = "predict"

    def __init__(self, read: Read, signature: Mapping[str, Any]) -> None:
        layout = in_column_order(signature["features"])
        self._features = Features(layout, pl.read_parquet(io.BytesIO(read(VALUES_FILE))))
        self._window = int(signature["max_length"])
        self._only_yes = bool(layout["history"]) and layout["history"]["events"] == "positive"
        # Many items are asked about with one history, when candidates are ranked.
        self._past = lru_cache(maxsize=_HISTORIES)(self._read_past)
        items = pl.read_parquet(io.BytesIO(read("vocabulary.parquet")))
        of_item = {name: items[f"{FEATURE}{name}"].to_list() for name in layout["of_item"]}
        self._of_item = {
            item: {name: values[place] for name, values in of_item.items()}
            for place, item in enumerate(items["id"].to_list())
        }

    @classmethod
    def form(cls, limits: RequestLimits) -> RequestForm:
        """See :func:`components.tasks.tell_form.tell_form`."""
        from components.tasks.tell_form import tell_form

        return tell_form(limits)

    @classmethod
    def question(cls, request: Any) -> Question:
        """From a checked body, or from a golden request."""
        if isinstance(request, Mapping):
            sent = {name: value for name, value in request.items() if name not in _NOT_SENT}
            events = request.get(HISTORY, [])
        else:
            sent = {ITEM: request.item, USER: request.user, **(request.model_extra or {})}
            events = request.history
        history = tuple(_event(event) for event in events)
        return Question({name: text_of(value) for name, value in sent.items()}, history)

    def parse(self, question: Question) -> Row:
        """The rows of the table, and the numbers, of a question.

        Raises:
            DataError: A column is unknown, or a number is none.
        """
        names = self._features.names
        for name in question.columns:
            if name not in names and name not in (ITEM, USER):
                raise DataError(
                    f"the model reads no column {name!r}; {nearest(name, [*names, HISTORY])}",
                    "`signature.json` of the package names its features.",
                )
        layout, item = self._features.layout, question.columns[ITEM]
        columns = {**self._of_item.get(str(item), {}), **_given(question.columns)}
        categories, unknown = [], []
        for name in (*layout["single"], *layout["bags"]):
            width = layout["bags"][name]["most"] if name in layout["bags"] else 1
            if name in layout["privileged"]:
                categories += [0] * width  # The graph passes over them.
                continue
            values = self._features.values_of(name, columns.get(name))
            unknown += [f"{name}={value}" for value in values if not self._features.known(name, value)]
            rows = [self._features.row(name, value) for value in values] or [self._features.row(name, None)]
            categories += [*rows, *[0] * (width - len(rows))]
        return Row(
            np.array(categories, np.int64),
            np.array([_number(name, columns.get(name)) for name in layout["numbers"]], np.float32),
            *self._past(question.history),
            tuple(dict.fromkeys(unknown)),
        )

    def _read_past(self, history: tuple[tuple[str, int], ...]) -> tuple[np.ndarray, np.ndarray]:
        """Rows and outcomes of the newest events, newest first."""
        newest = [event for event in history if event[1] or not self._only_yes][::-1][: self._window]
        rows = np.array([self._features.row(ITEM, name) for name, _ in newest], np.int64)
        return rows, np.array([label for _, label in newest], np.int64)

    def refusal(self, question: Question) -> str | None:
        """Its columns have to be those of the package, and numbers numbers."""
        try:
            self.parse(question)
        except DataError as error:
            return error.message
        return None

    def feed(self, parsed: Sequence[Row]) -> dict[str, np.ndarray]:
        """The inputs of the graph, histories padded on the right."""
        found = {"categories": np.stack([row.categories for row in parsed])}
        if self._features.layout["numbers"]:
            found["numbers"] = np.stack([row.numbers for row in parsed])
        if self._window:
            longest = max(1, *(len(row.history) for row in parsed))
            for name in ("history", "happened"):
                padded = np.zeros((len(parsed), longest), np.int64)
                for place, row in enumerate(parsed):
                    values = getattr(row, name)
                    padded[place, : len(values)] = values
                found[name] = padded
        return found

    def answer(self, question: Question, parsed: Row, scores: np.ndarray | None) -> Answer:
        """The probability."""
        assert scores is not None
        return Answer(float(expit(np.float64(scores[0]))), parsed.unknown, len(parsed.history))

    def worth(self, answer: Answer) -> float:
        """Of the probability, which rounding may have made 0 or 1."""
        likely = min(max(answer.probability, _LEAST), 1 - _LEAST)
        return math.log(likely / (1 - likely))

    def record(self, answer: Answer) -> dict[str, Any]:
        """An answer as JSON."""
        return answer._asdict() | {"unknown": list(answer.unknown)}

    def expected(self, answer: Answer) -> dict[str, Any]:
        """The probability."""
        return {"scores": [answer.probability]}

    def agrees(self, answer: Answer, golden: Mapping[str, Any], tolerance: float) -> bool:
        """The expected probability, within the tolerance."""
        return abs(answer.probability - golden["scores"][0]) <= tolerance

    def alike(self, one: Answer, other: Answer, share: float) -> bool:
        """Probabilities that differ by the rounding of floats at most."""
        return abs(one.probability - other.probability) <= share

    def overlap(self, one: Answer, other: Answer) -> float:
        """How near the two probabilities are: 1 where they are the same."""
        return 1.0 - abs(one.probability - other.probability)

    def unknown(self, answer: Answer) -> int:
        """Values that the model has not met."""
        return len(answer.unknown)

    def lines(self, answer: Answer) -> tuple[list[str], list[str], list[list[str]]]:
        """For people."""
        remarks = []
        if answer.unknown:
            more = len(answer.unknown) - _SHOWN
            listed = ", ".join(answer.unknown[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
            remarks.append(f"not met in training: {listed}")
        return remarks, ["probability", "history used"], [[f"{answer.probability:.4f}", str(answer.history_used)]]


# What stands beside the row in a golden request.
_NOT_SENT = {HISTORY, "scores"}


def _event(event: Any) -> tuple[str, int]:
    if isinstance(event, str):
        return event, 1
    if isinstance(event, Mapping):
        return str(event[ITEM]), int(event.get("label", 1))
    return event.item, event.label


def _given(columns: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in columns.items() if value is not None}


def _number(name: str, text: str | None) -> float:
    if text is None:
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{name!r} is a number, and {text!r} is none", "Send a number, or null.") from None
