"""Labels with their probabilities from the scores of a sample."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from components.errors import DataError
from components.tasks.answering import Answering, Read, RequestForm, RequestLimits

Question = tuple[float, ...]


class Answer(NamedTuple):
    """The answer to one request.

    Attributes:
        labels: Likeliest first.
        probabilities: Of each; they add up to 1.
    """

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]


class TellingLabels(Answering):
    """What all have in common that answer with the labels, likeliest first, whatever they are asked."""

    endpoint = "predict"

    def __init__(self, read: Read, signature: Mapping[str, Any]) -> None:
        labels = pl.read_parquet(io.BytesIO(read("vocabulary.parquet"))).sort("item")
        self._labels: list[str] = labels["id"].to_list()
        self._bernoulli = signature["loss"] == "bernoulli"

    def answer(self, question: Any, parsed: Any, scores: np.ndarray | None) -> Answer:
        """All labels, likeliest first."""
        assert scores is not None
        logits = np.array([0.0, scores[0]]) if self._bernoulli else scores.astype(np.float64)
        weights = np.exp(logits - logits.max())
        shares = weights / weights.sum()
        order = np.argsort(-shares, kind="stable")
        return Answer(tuple(self._labels[place] for place in order), tuple(shares[order].tolist()))

    def record(self, answer: Answer) -> dict[str, Any]:
        """An answer as JSON."""
        pairs = zip(answer.labels, answer.probabilities, strict=True)
        return {"labels": [{"label": label, "probability": share} for label, share in pairs]}

    def expected(self, answer: Answer) -> dict[str, Any]:
        """Labels and probabilities."""
        return {"labels": list(answer.labels), "scores": list(answer.probabilities)}

    def agrees(self, answer: Answer, golden: Mapping[str, Any], tolerance: float) -> bool:
        """Every label has its expected probability, within the tolerance."""
        expected = dict(zip(golden["labels"], golden["scores"], strict=True))
        found = dict(zip(answer.labels, answer.probabilities, strict=True))
        return expected.keys() == found.keys() and all(
            abs(found[label] - share) <= tolerance for label, share in expected.items()
        )

    def alike(self, one: Answer, other: Answer, share: float) -> bool:
        """The same order, and probabilities that differ by the rounding of floats at most."""
        return one.labels == other.labels and np.allclose(one.probabilities, other.probabilities, rtol=0, atol=share)

    def overlap(self, one: Answer, other: Answer) -> float:
        """1 for the same likeliest label, else 0."""
        return float(one.labels[0] == other.labels[0])

    def lines(self, answer: Answer) -> tuple[list[str], list[str], list[list[str]]]:
        """For people."""
        pairs = zip(answer.labels, answer.probabilities, strict=True)
        return [], ["probability", "label"], [[f"{share:.4f}", label] for label, share in pairs]


class Predicting(TellingLabels):
    """Tells the labels of samples of a fixed number of values."""

    def __init__(self, read: Read, signature: Mapping[str, Any]) -> None:
        super().__init__(read, signature)
        self._width = math.prod(signature["values"])

    @classmethod
    def form(cls, limits: RequestLimits) -> RequestForm:
        """See :func:`components.tasks.predict_form.predict_form`."""
        from components.tasks.predict_form import predict_form

        return predict_form(limits)

    @classmethod
    def question(cls, request: Any) -> Question:
        """From a checked body, or from a golden request."""
        values = request["values"] if isinstance(request, Mapping) else request.values
        return tuple(map(float, values))

    def refusal(self, question: Question) -> str | None:
        """It has to have as many values as the model reads."""
        if len(question) == self._width:
            return None
        return f"the sample has {len(question)} values, and the model reads {self._width}"

    def parse(self, question: Question) -> Question:
        """The values themselves, if they are as many as the model reads."""
        if reason := self.refusal(question):
            raise DataError(reason, "`signature.json` of the package says which.")
        return question

    def feed(self, parsed: Sequence[Question]) -> dict[str, np.ndarray]:
        """``values``, a row a sample."""
        return {"values": np.array(parsed, dtype=np.float32)}
