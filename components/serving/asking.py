"""Asking a model, whatever computes its scores, and holding its answers against golden requests."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from components.errors import IntegrityError
from components.serving.package_folder import GOLDEN, PackageFolder
from components.tasks.answering import Answering


class Asked(ABC):
    """What answers requests.

    Attributes:
        answering: How it is asked.
    """

    answering: Answering

    @abstractmethod
    def answer_all(self, questions: Sequence[Any]) -> list[Any]:
        """The answers to several questions.

        Raises:
            DataError: There is no answer to one of them.
            IntegrityError: A model fails, or gives no finite scores.
        """

    def recommend(
        self, history: Sequence[str], k: int = 10, *, exclude_seen: bool = True, exclude: Sequence[str] = ()
    ) -> Any:
        """The best items for a history, from a model that ranks items.

        Raises:
            DataError: ``k`` is less than 1.
            IntegrityError: The model fails, or gives no finite scores.
        """
        return self.ask({"history": history, "k": k, "exclude": exclude, "exclude_seen": exclude_seen})

    def ask(self, request: Any) -> Any:
        """The answer to one request, given as its JSON.

        Raises:
            DataError: It is no request, or there is no answer to it.
            IntegrityError: The model fails, or gives no finite scores.
        """
        return self.answer_all([self.answering.question(request)])[0]


class AskedModel(Asked):
    """One model: a request becomes a feed, scores become an answer."""

    @abstractmethod
    def scores(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        """Scores ``(questions, K)`` of a feed; the answers may overwrite them.

        Raises:
            IntegrityError: The model fails, or gives no finite scores.
        """

    def answer_all(self, questions: Sequence[Any]) -> list[Any]:
        """The answers to several questions, with one run of the model for all of them.

        A model whose activations are quantized as it runs shares a scale between the rows of one run: its answers
        hang on what else is asked. Ask it one question at a time.

        Raises:
            DataError: There is no answer to one of them.
            IntegrityError: The model fails, or gives no finite scores.
        """
        answering = self.answering
        parsed = [answering.parse(question) for question in questions]
        pairs = list(zip(questions, parsed, strict=True))
        asked = [pair for pair in pairs if answering.needs_model(pair[1])]
        told = iter(self.told(asked) if asked else ())
        return [
            next(told) if answering.needs_model(one) else answering.answer(question, one, None)
            for question, one in pairs
        ]

    def told(self, asked: Sequence[tuple[Any, Any]]) -> list[Any]:
        """The answers to questions that need the model, each given with what :meth:`Answering.parse` made of it."""
        scores = self.scores(self.answering.feed([parsed for _, parsed in asked]))
        return [self.answering.answer(*pair, row) for pair, row in zip(asked, scores, strict=True)]


def replay(asked: Asked, package: PackageFolder) -> int:
    """Answer a package's golden requests again, and compare with what was expected when it was made.

    Returns:
        How many requests were replayed.

    Raises:
        IntegrityError: An answer differs.
    """
    golden = json.loads(package.read(GOLDEN))
    tolerance = float(golden["tolerance"])
    for number, request in enumerate(golden["requests"]):
        answer = asked.ask(request)
        if not asked.answering.agrees(answer, request, tolerance):
            raise IntegrityError(
                f"{package.folder}: golden request {number} is answered with "
                f"{asked.answering.expected(answer)}, not as when the package was made",
                "The model does not behave here as where it was made: do not serve it.",
            )
    return len(golden["requests"])
