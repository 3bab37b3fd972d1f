"""Recommendations from a package alone: no checkout, no torch, and no byte that was not verified."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from components.errors import DataError, IntegrityError
from components.evaluation.onnx_session import new_session
from components.serving.package_folder import GOLDEN, MODEL, SIGNATURE, VOCABULARY, PackageFolder


class Question(NamedTuple):
    """One request.

    Attributes:
        history: Item ids as the source wrote them, oldest first. Unknown ones are passed over; of more than the model
            reads, the newest count.
        k: How many items.
        exclude: Ids that must not be recommended; unknown ones change nothing.
        exclude_seen: Leave out the items of the whole history.
    """

    history: Sequence[str]
    k: int = 10
    exclude: Sequence[str] = ()
    exclude_seen: bool = True


class Recommendation(NamedTuple):
    """One recommended item.

    Attributes:
        id: The source's id.
        title: Its title, where the source has one.
        score: The model's score; for a history without any known item, the item's training events.
    """

    id: str
    title: str | None
    score: float


class Recommendations(NamedTuple):
    """The answer to one request.

    Attributes:
        items: Best first; fewer than asked for when the catalogue has no more.
        unknown: Ids of the history that the model has never seen, and that were passed over.
        from_popularity: No item of the history was known: these are the most popular items.
    """

    items: list[Recommendation]
    unknown: list[str]
    from_popularity: bool


class Predictor:
    """A loaded package.

    Args:
        folder: The package.
        threads: Threads within one operator of the model.

    Attributes:
        record: ``package.json``: what the model is, and what it was made from.

    Raises:
        DataError: The folder is no package.
        IntegrityError: A file is missing, damaged, or not the one that the package was made with.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self._package = PackageFolder(Path(folder))
        self.record: dict[str, Any] = self._package.record
        signature = json.loads(self._package.read(SIGNATURE))
        self._max_length = int(signature["max_length"])
        vocabulary = pl.read_parquet(io.BytesIO(self._package.read(VOCABULARY))).sort("item")
        self._ids: list[str] = vocabulary["id"].to_list()
        self._titles: list[str | None] = vocabulary["title"].to_list()
        self._popularity = vocabulary["train_events"].to_numpy().astype(np.float32)
        self._index = {name: number for number, name in enumerate(self._ids)}
        self._session = new_session(self._package.read(MODEL), threads)
        if signature["items"] != len(self._ids):
            raise IntegrityError(f"{folder}: the model scores {signature['items']} items, not {len(self._ids)}")

    def recommend(
        self, history: Sequence[str], k: int = 10, *, exclude_seen: bool = True, exclude: Sequence[str] = ()
    ) -> Recommendations:
        """The best items for a history; see :class:`Question` for what is asked.

        Raises:
            DataError: ``k`` is less than 1.
            IntegrityError: The model gives no finite scores.
        """
        return self.recommend_all([Question(history, k, exclude, exclude_seen)])[0]

    def recommend_all(self, questions: Sequence[Question]) -> list[Recommendations]:
        """The answers to several questions, with one run of the model for all of them.

        A model whose activations are quantized as it runs shares a scale between the rows of one run: its answers
        hang on what else is asked. Ask it one question at a time.

        Raises:
            DataError: A ``k`` is less than 1.
            IntegrityError: The model gives no finite scores.
        """
        for question in questions:
            if question.k < 1:
                raise DataError(f"k is {question.k}: there is nothing to recommend", "Ask for at least one item.")
        known = [[self._index[name] for name in question.history if name in self._index] for question in questions]
        scores = iter(self._scores([read[-self._max_length :] for read in known if read]))
        return [
            self._answer(question, read, next(scores) if read else self._popularity.copy())
            for question, read in zip(questions, known, strict=True)
        ]

    def _answer(self, question: Question, known: list[int], scores: np.ndarray) -> Recommendations:
        """The best items of one question; writes into ``scores`` ``(items,)``."""
        if not np.isfinite(scores.max()):
            raise IntegrityError(f"{self._package.folder}: the model gives no finite scores", "Do not serve it.")
        if question.exclude_seen:
            scores[known] = -np.inf
        if question.exclude:
            scores[[self._index[name] for name in question.exclude if name in self._index]] = -np.inf
        unknown = [name for name in question.history if name not in self._index]
        best = [item for item in _best(scores, question.k).tolist() if scores[item] > -np.inf]
        return Recommendations(
            [Recommendation(self._ids[item], self._titles[item], float(scores[item])) for item in best],
            unknown,
            from_popularity=not known,
        )

    def replay_golden(self) -> int:
        """Answer the package's golden requests again, and compare with what was expected when it was made.

        Every rank must have its expected score within the tolerance, and an item may be missing only where its score
        is that close to the last one: another processor may swap two items that are as good as equal, no more.

        Returns:
            How many requests were replayed.

        Raises:
            IntegrityError: An answer differs.
        """
        golden = json.loads(self._package.read(GOLDEN))
        tolerance = float(golden["tolerance"])
        for number, request in enumerate(golden["requests"]):
            answer = self.recommend(request["history"], int(request["k"]), exclude_seen=bool(request["exclude_seen"]))
            expected = dict(zip(request["items"], request["scores"], strict=True))
            scores = [item.score for item in answer.items]
            missing = set(expected) - {item.id for item in answer.items}
            worst = min(request["scores"], default=0.0)
            if (
                len(scores) != len(expected)
                or not np.allclose(scores, request["scores"], rtol=0, atol=tolerance)
                or any(expected[name] > worst + 2 * tolerance for name in missing)
            ):
                raise IntegrityError(
                    f"{self._package.folder}: golden request {number} is answered with "
                    f"{[item.id for item in answer.items]}, not {request['items']}",
                    "The model does not behave here as where it was made: do not serve it.",
                )
        return len(golden["requests"])

    def _scores(self, histories: list[list[int]]) -> np.ndarray:
        """Scores ``(histories, items)`` after histories of known items, none of them empty."""
        if not histories:
            return np.empty((0, len(self._ids)), np.float32)
        lengths = [len(history) for history in histories]
        items = np.zeros((len(histories), max(lengths)), np.int64)
        for row, history in zip(items, histories, strict=True):
            row[: len(history)] = history
        feed = {"items": items, "length": np.array(lengths, dtype=np.int64)}
        scores: np.ndarray = np.array(self._session.run(["scores"], feed)[0])
        return scores


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """The ``k`` items of greatest score, best first; of equal ones the lower index comes first."""
    k = min(k, len(scores))
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    among = np.flatnonzero(scores >= least)
    return among[np.argsort(-scores[among], kind="stable")][:k]
