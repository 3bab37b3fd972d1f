"""How a packaged model is asked: a request becomes a feed, scores become an answer. No torch is needed for it.

A *question* is a checked request, an *answer* what is said to it; both are plain tuples of the task's own. A *record*
is the JSON of either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from pydantic import BaseModel

Read = Callable[[str], bytes]
"""Verified bytes of a package's file by its name."""


class Found(NamedTuple):
    """The best outcomes of a catalogue that is searched and not scored as a whole, best first.

    Attributes:
        items: ``(n,)`` int64, places in the catalogue.
        scores: ``(n,)`` float32.
    """

    items: np.ndarray
    scores: np.ndarray


class RequestLimits(Protocol):
    """Bounds on what one request may hold."""

    @property
    def history(self) -> int:
        """Ids in a list."""

    @property
    def id_length(self) -> int:
        """Characters of an id."""

    @property
    def k(self) -> int:
        """Outcomes that may be asked for."""

    @property
    def batch(self) -> int:
        """Questions in one batch."""

    @property
    def values(self) -> int:
        """Numbers in one request."""

    @property
    def characters(self) -> int:
        """Characters of a text."""


class RequestForm(NamedTuple):
    """What requests and answers look like, as pydantic models.

    Attributes:
        request: One question.
        batch: Several, in its field ``requests``.
        answer: One answer, with the version that gave it.
        answers: Several.
    """

    request: type[BaseModel]
    batch: type[BaseModel]
    answer: type[BaseModel]
    answers: type[BaseModel]


class Answering(ABC):
    """What the service and ``recstill predict`` do with requests and scores.

    Args:
        read: Reads the package's files.
        signature: Its ``signature.json``.

    Raises:
        IntegrityError: The files contradict each other.
    """

    endpoint: ClassVar[str]
    """Requests go to ``POST /<endpoint>``, batches to ``POST /<endpoint>/batch``."""

    @abstractmethod
    def __init__(self, read: Read, signature: Mapping[str, Any]) -> None: ...

    @classmethod
    @abstractmethod
    def form(cls, limits: RequestLimits) -> RequestForm:
        """What requests may be."""

    @classmethod
    @abstractmethod
    def question(cls, request: Any) -> Any:
        """The question of a request: an instance of the form's model, or the JSON of a golden request.

        Raises:
            DataError: It cannot be one.
        """

    def refusal(self, question: Any) -> str | None:
        """Why a question has no answer, told before it is asked together with others; None where it has one."""
        return None

    @abstractmethod
    def parse(self, question: Any) -> Any:
        """A question as the model reads it.

        Raises:
            DataError: There is no answer to it.
        """

    def needs_model(self, parsed: Any) -> bool:
        """Whether the model is asked at all."""
        return True

    @abstractmethod
    def feed(self, parsed: Sequence[Any]) -> dict[str, np.ndarray]:
        """One feed for several questions, none of which is empty."""

    @abstractmethod
    def answer(self, question: Any, parsed: Any, scores: np.ndarray | None) -> Any:
        """The answer from the scores ``(K,)``, which may be overwritten; None where the model is not needed."""

    @abstractmethod
    def record(self, answer: Any) -> dict[str, Any]:
        """An answer as JSON."""

    @abstractmethod
    def expected(self, answer: Any) -> dict[str, Any]:
        """What a golden request says of its answer; holds ``scores``, a list of numbers."""

    @abstractmethod
    def agrees(self, answer: Any, golden: Mapping[str, Any], tolerance: float) -> bool:
        """Whether an answer is the one that a golden request expects, as far as scores may differ."""

    @abstractmethod
    def alike(self, one: Any, other: Any, share: float) -> bool:
        """The same answer, with scores that differ by this share of the largest at most."""

    @abstractmethod
    def overlap(self, one: Any, other: Any) -> float:
        """How much of one answer another holds, 0 to 1."""

    def unknown(self, answer: Any) -> int:
        """Parts of the request that the model did not know."""
        return 0

    def fell_back(self, answer: Any) -> bool:
        """Whether the model could not be asked."""
        return False

    def size(self, question: Any) -> int:
        """Outcomes in the answer."""
        return 1

    def empty(self) -> Any:
        """A question that is always possible, for measuring; None where there is none."""
        return None

    @abstractmethod
    def lines(self, answer: Any) -> tuple[list[str], list[str], list[list[str]]]:
        """For people: remarks, the heads of a table, and its rows."""


class Retrieving(Answering):
    """Answers with outcomes that another model may put into another order."""

    @abstractmethod
    def enough(self, question: Any, parsed: Any) -> int:
        """How many of the best outcomes hold an answer, whichever of them the question leaves out."""

    @abstractmethod
    def answer_found(self, question: Any, parsed: Any, found: Found) -> Any:
        """The answer from the best outcomes, :meth:`enough` of them or all that there are."""

    @abstractmethod
    def wider(self, question: Any, k: int) -> Any:
        """The same question, for ``k`` outcomes or as many as it asks for, whichever are more."""

    @abstractmethod
    def candidates(self, question: Any, answer: Any) -> list[dict[str, Any]]:
        """A request about each outcome of an answer, best first, as a :class:`Ranking` model takes it; none where the
        model could not be asked."""

    @abstractmethod
    def reordered(self, question: Any, answer: Any, added: np.ndarray) -> Any:
        """The answer to a question from one to a wider question.

        Args:
            question: What was asked.
            answer: The answer to the wider question.
            added: What is added to the score of each of its outcomes, in their order; empty: nothing.
        """


class Ranking(Answering):
    """Answers what an outcome is worth."""

    @abstractmethod
    def worth(self, answer: Any) -> float:
        """The log of the odds that something comes of it."""
