"""Labels with their probabilities from the scores of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.errors import DataError
from components.tasks.answering import Read, RequestForm, RequestLimits
from components.tasks.predicting import TellingLabels

TOKENIZER_FILE = "tokenizer.json"


def padded_tokens(texts: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """``tokens`` ``(B, L)`` int64, padded with 0 on the right up to the longest, and ``length`` ``(B,)`` int64."""
    length = np.array([len(tokens) for tokens in texts], dtype=np.int64)
    padded = np.zeros((len(texts), length.max()), dtype=np.int64)
    padded[np.arange(padded.shape[1]) < length[:, None]] = np.concatenate(texts)
    return {"tokens": padded, "length": length}


class Classifying(TellingLabels):
    """Tells the labels of texts. The tokenizer is the package's own."""

    def __init__(self, read: Read, signature: Mapping[str, Any]) -> None:
        # The library is imported by whoever serves texts.
        from components.data.tokenizing import read_tokenizer

        super().__init__(read, signature)
        self._tokenizer = read_tokenizer(read(TOKENIZER_FILE), TOKENIZER_FILE)
        self._max_length = int(signature["max_length"])

    @classmethod
    def form(cls, limits: RequestLimits) -> RequestForm:
        """See :func:`components.tasks.text_form.text_form`."""
        from components.tasks.text_form import text_form

        return text_form(limits)

    @classmethod
    def question(cls, request: Any) -> str:
        """From a checked body, or from a golden request."""
        return str(request["text"] if isinstance(request, Mapping) else request.text)

    def refusal(self, question: str) -> str | None:
        """It has to have a token."""
        return None if len(self._tokens(question)) else "the text holds nothing but white space and control characters"

    def parse(self, question: str) -> np.ndarray:
        """The tokens that the model reads, ``(length,)``, one at least."""
        if reason := self.refusal(question):
            raise DataError(reason, "Send a text.")
        return self._tokens(question)

    def feed(self, parsed: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """``tokens`` and ``length``."""
        return padded_tokens(parsed)

    def _tokens(self, question: str) -> np.ndarray:
        from components.data.tokenizing import tokens_of

        return tokens_of(self._tokenizer, [question], self._max_length)[0]
