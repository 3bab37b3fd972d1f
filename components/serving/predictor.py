"""Answers from a package alone: no checkout, no torch, and no byte that was not verified."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import IntegrityError
from components.evaluation.onnx_session import new_session
from components.serving.package_folder import GOLDEN, MODEL, SIGNATURE, PackageFolder
from components.tasks.building import answering_of


class Predictor:
    """A loaded package.

    Args:
        folder: The package.
        threads: Threads within one operator of the model.

    Attributes:
        record: ``package.json``: what the model is, and what it was made from.
        signature: ``signature.json``: what its graph and its requests are like.
        answering: How it is asked.

    Raises:
        DataError: The folder is no package.
        IntegrityError: A file is missing, damaged, or not the one that the package was made with.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self._package = PackageFolder(Path(folder))
        self.record: dict[str, Any] = self._package.record
        self.signature: dict[str, Any] = json.loads(self._package.read(SIGNATURE))
        self.answering = answering_of(str(self.record["task"]))(self._package.read, self.signature)
        self._output = str(self.signature["outputs"][0]["name"])
        self._session = new_session(self._package.read(MODEL), threads)

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
        asked = [one for one in parsed if answering.needs_model(one)]
        scores = iter(self._scores(answering.feed(asked)) if asked else ())
        return [
            answering.answer(question, one, next(scores) if answering.needs_model(one) else None)
            for question, one in zip(questions, parsed, strict=True)
        ]

    def replay_golden(self) -> int:
        """Answer the package's golden requests again, and compare with what was expected when it was made.

        Returns:
            How many requests were replayed.

        Raises:
            IntegrityError: An answer differs.
        """
        golden = json.loads(self._package.read(GOLDEN))
        tolerance = float(golden["tolerance"])
        for number, request in enumerate(golden["requests"]):
            answer = self.ask(request)
            if not self.answering.agrees(answer, request, tolerance):
                raise IntegrityError(
                    f"{self._package.folder}: golden request {number} is answered with "
                    f"{self.answering.expected(answer)}, not as when the package was made",
                    "The model does not behave here as where it was made: do not serve it.",
                )
        return len(golden["requests"])

    def _scores(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        """Scores ``(questions, K)``."""
        try:
            scores: np.ndarray = np.array(self._session.run([self._output], feed)[0])
        # ONNX Runtime derives each of its errors straight from Exception, in a private module.
        except Exception as error:
            raise IntegrityError(f"{self._package.folder}: the model fails: {error}", "Do not serve it.") from None
        if not np.isfinite(scores.max(axis=1)).all():
            raise IntegrityError(f"{self._package.folder}: the model gives no finite scores", "Do not serve it.")
        return scores
