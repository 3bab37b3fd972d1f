"""Two models that answer together: one retrieves candidates, the other ranks them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import IntegrityError
from components.serving.asking import Asked, AskedModel, replay
from components.serving.package_folder import RECORD, PackageFolder
from components.serving.predictor import Predictor
from components.tasks.answering import Ranking, Retrieving

RETRIEVAL, RANKING = "retrieval", "ranking"
"""The parts of a package of two stages, and their folders."""


class TwoStage(Asked):
    """``score = retrieval's score + weight * log-odds of ranking``, over the candidates.

    Requests and answers are those of the retrieval.

    Args:
        retrieval: Answers with the best outcomes.
        ranking: Tells how likely something comes of one.
        candidates: Outcomes that are ranked, at least.
        weight: Of the log-odds.

    Raises:
        IntegrityError: One of the models cannot take its part.
    """

    def __init__(self, retrieval: AskedModel, ranking: AskedModel, candidates: int, weight: float) -> None:
        retrieving, telling = retrieval.answering, ranking.answering
        if not isinstance(retrieving, Retrieving):
            raise IntegrityError("the model that is to retrieve does not answer with outcomes of a catalogue")
        if not isinstance(telling, Ranking):
            raise IntegrityError("the model that is to rank does not tell what an outcome is worth")
        self.answering: Retrieving = retrieving
        self._telling = telling
        self._retrieval, self._ranking = retrieval, ranking
        self.candidates, self.weight = candidates, weight

    def retrieve(self, questions: Sequence[Any]) -> list[Any]:
        """The candidates of each question: the retrieval's answers to wider questions."""
        return self._retrieval.answer_all([self.answering.wider(question, self.candidates) for question in questions])

    def log_odds(self, question: Any, retrieved: Any) -> np.ndarray:
        """What the ranking tells of each candidate, ``(candidates,)``; empty where there are none to be ranked."""
        requests = self.answering.candidates(question, retrieved)
        told = self._ranking.answer_all([self._telling.question(request) for request in requests]) if requests else []
        return np.array([self._telling.worth(answer) for answer in told])

    def ranked(self, question: Any, retrieved: Any) -> Any:
        """The answer, from the candidates."""
        return self.answering.reordered(question, retrieved, self.weight * self.log_odds(question, retrieved))

    def answer_all(self, questions: Sequence[Any]) -> list[Any]:
        """The answers: one run of the retrieval for all questions, and one of the ranking for each."""
        return [self.ranked(*pair) for pair in zip(questions, self.retrieve(questions), strict=True)]


class TwoStagePredictor(TwoStage):
    """A loaded package of two.

    Args:
        folder: The package.
        threads: Threads within one operator of a model.

    Attributes:
        record: Its ``package.json``.

    Raises:
        DataError: The folder is no package.
        IntegrityError: A file is missing, damaged, or not the one that the package was made with.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self._package = PackageFolder(folder)
        self.record: dict[str, Any] = self._package.record
        if set(self._package.parts) != {RETRIEVAL, RANKING}:
            raise IntegrityError(f"{folder / RECORD} lists other parts than {RETRIEVAL} and {RANKING}")
        how = self.record["two_stage"]
        super().__init__(
            Predictor(folder / RETRIEVAL, threads),
            Predictor(folder / RANKING, threads),
            int(how["candidates"]),
            float(how["weight"]),
        )

    def replay_golden(self) -> int:
        """Answer the golden requests of the whole, and of its parts, again.

        Raises:
            IntegrityError: An answer differs.
        """
        for name, model in ((RETRIEVAL, self._retrieval), (RANKING, self._ranking)):
            replay(model, self._package.parts[name])
        return replay(self, self._package)
