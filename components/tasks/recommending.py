"""Recommendations from scores over a catalogue: histories in, the best items out."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from components.errors import DataError, IntegrityError
from components.tasks.answering import Found, Read, RequestForm, RequestLimits, Retrieving


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


class Recommending(Retrieving):
    """Ranks a catalogue for a history; without any known item of it, by popularity."""

    endpoint = "recommend"

    def __init__(self, read: Read, signature: Mapping[str, Any]) -> None:
        self._max_length = int(signature["max_length"])
        vocabulary = pl.read_parquet(io.BytesIO(read("vocabulary.parquet"))).sort("item")
        self._ids: list[str] = vocabulary["id"].to_list()
        self._titles: list[str | None] = vocabulary["title"].to_list()
        self._popularity = vocabulary["train_events"].to_numpy().astype(np.float32)
        self._index = {name: number for number, name in enumerate(self._ids)}
        if signature["items"] != len(self._ids):
            raise IntegrityError(f"the model scores {signature['items']} items, not {len(self._ids)}")

    @classmethod
    def form(cls, limits: RequestLimits) -> RequestForm:
        """See :func:`components.tasks.recommend_form.recommend_form`."""
        from components.tasks.recommend_form import recommend_form

        return recommend_form(limits)

    @classmethod
    def question(cls, request: Any) -> Question:
        """From a checked body, or from a golden request."""
        if isinstance(request, Mapping):
            return Question(
                request.get("history", ()),
                int(request.get("k", 10)),
                request.get("exclude", ()),
                bool(request.get("exclude_seen", True)),
            )
        return Question(request.history, request.k, request.exclude, request.exclude_seen)

    def parse(self, question: Question) -> list[int]:
        """The known items of the whole history, by their place in the catalogue."""
        if question.k < 1:
            raise DataError(f"k is {question.k}: there is nothing to recommend", "Ask for at least one item.")
        return [self._index[name] for name in question.history if name in self._index]

    def needs_model(self, parsed: list[int]) -> bool:
        """A history without any known item is answered with the most popular ones."""
        return bool(parsed)

    def feed(self, parsed: Sequence[list[int]]) -> dict[str, np.ndarray]:
        """The newest events of each history, padded on the right."""
        histories = [known[-self._max_length :] for known in parsed]
        lengths = [len(history) for history in histories]
        items = np.zeros((len(histories), max(lengths)), np.int64)
        for row, history in zip(items, histories, strict=True):
            row[: len(history)] = history
        return {"items": items, "length": np.array(lengths, dtype=np.int64)}

    def answer(self, question: Question, parsed: list[int], scores: np.ndarray | None) -> Recommendations:
        """The best items of one question."""
        if scores is None:
            scores = self._popularity.copy()
        scores[self._left_out(question, parsed)] = -np.inf
        best = [item for item in _best(scores, question.k).tolist() if scores[item] > -np.inf]
        return self._recommended(question, parsed, best, scores[best])

    def enough(self, question: Question, parsed: list[int]) -> int:
        """``k`` beyond all that is left out."""
        return question.k + len(set(self._left_out(question, parsed)))

    def answer_found(self, question: Question, parsed: list[int], found: Found) -> Recommendations:
        """The best of the items that were found."""
        kept = ~np.isin(found.items, self._left_out(question, parsed))
        items, scores = found.items[kept], found.scores[kept]
        best = np.lexsort((items, -scores))[: question.k]
        return self._recommended(question, parsed, items[best].tolist(), scores[best])

    def _left_out(self, question: Question, parsed: list[int]) -> list[int]:
        """Places of the items that must not be recommended."""
        seen = parsed if question.exclude_seen else []
        return [*seen, *(self._index[name] for name in question.exclude if name in self._index)]

    def _recommended(
        self, question: Question, parsed: list[int], items: list[int], scores: np.ndarray
    ) -> Recommendations:
        unknown = [name for name in question.history if name not in self._index]
        return Recommendations(
            [
                Recommendation(self._ids[item], self._titles[item], float(score))
                for item, score in zip(items, scores, strict=True)
            ],
            unknown,
            from_popularity=not parsed,
        )

    def wider(self, question: Question, k: int) -> Question:
        """For ``k`` items at least."""
        return question._replace(k=max(question.k, k))

    def candidates(self, question: Question, answer: Recommendations) -> list[dict[str, Any]]:
        """Each item with the history; of the most popular items there are none."""
        if answer.from_popularity:
            return []
        history = list(question.history)
        return [{"item": item.id, "history": history} for item in answer.items]

    def reordered(self, question: Question, answer: Recommendations, added: np.ndarray) -> Recommendations:
        """The items of greatest score; of equal ones that which was before."""
        if not len(added):
            return answer._replace(items=answer.items[: question.k])
        scores = np.array([item.score for item in answer.items]) + added
        best = np.argsort(-scores, kind="stable")[: question.k]
        items = [answer.items[place]._replace(score=float(scores[place])) for place in best]
        return answer._replace(items=items)

    def record(self, answer: Recommendations) -> dict[str, Any]:
        """An answer as JSON."""
        items = [{"item": item.id, "title": item.title, "score": item.score} for item in answer.items]
        return {"recommendations": items, "unknown": answer.unknown, "popular": answer.from_popularity}

    def expected(self, answer: Recommendations) -> dict[str, Any]:
        """Items and scores."""
        return {"items": [item.id for item in answer.items], "scores": [item.score for item in answer.items]}

    def agrees(self, answer: Recommendations, golden: Mapping[str, Any], tolerance: float) -> bool:
        """Every rank must have its expected score within the tolerance, and an item may be missing only where its score
        is that close to the last one: another processor may swap two items that are as good as equal, no more.
        """
        expected = dict(zip(golden["items"], golden["scores"], strict=True))
        scores = [item.score for item in answer.items]
        missing = set(expected) - {item.id for item in answer.items}
        worst = min(golden["scores"], default=0.0)
        return (
            len(scores) == len(expected)
            and np.allclose(scores, golden["scores"], rtol=0, atol=tolerance)
            and not any(expected[name] > worst + 2 * tolerance for name in missing)
        )

    def alike(self, one: Recommendations, other: Recommendations, share: float) -> bool:
        """The same items in the same order, and scores that differ by the rounding of floats at most."""
        scores, others = ([item.score for item in answer.items] for answer in (one, other))
        if [item.id for item in one.items] != [item.id for item in other.items]:
            return False
        return np.allclose(scores, others, rtol=0, atol=share * max(np.abs(scores).max(initial=0), 1e-3))

    def overlap(self, one: Recommendations, other: Recommendations) -> float:
        """Share of the first one's items that the other holds too."""
        wanted = {item.id for item in one.items}
        return len(wanted & {item.id for item in other.items}) / len(wanted) if wanted else 1.0

    def unknown(self, answer: Recommendations) -> int:
        """Ids of the history that the model has never seen."""
        return len(answer.unknown)

    def fell_back(self, answer: Recommendations) -> bool:
        """Whether the most popular items were given."""
        return answer.from_popularity

    def size(self, question: Question) -> int:
        """Items that are asked for."""
        return question.k

    def empty(self) -> Question:
        """A history of nothing."""
        return Question([])

    def lines(self, answer: Recommendations) -> tuple[list[str], list[str], list[list[str]]]:
        """For people."""
        remarks = []
        if answer.unknown:
            remarks.append(f"not in the catalogue, left out: {', '.join(answer.unknown)}")
        if answer.from_popularity:
            remarks.append("no known item in the history: these are the most popular ones")
        rows = [[one.id, f"{one.score:.3f}", one.title or ""] for one in answer.items]
        return remarks, ["item", "score", "title"], rows


def _best(scores: np.ndarray, k: int) -> np.ndarray:
    """The ``k`` items of greatest score, best first; of equal ones the lower index comes first."""
    k = min(k, len(scores))
    least = np.partition(scores, len(scores) - k)[len(scores) - k]
    among = np.flatnonzero(scores >= least)
    return among[np.argsort(-scores[among], kind="stable")][:k]
