"""A file of requests, and the answers to all of them in another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from components.errors import DataError
from components.serving.asking import Asked
from components.serving.http_schemas import RequestReader
from components.serving.limits import Limits, RefusedRequestError
from components.storage.atomic import new_file


class Done(NamedTuple):
    """What was answered.

    Attributes:
        requests: How many.
        seconds: From the first request to the last answer.
    """

    requests: int
    seconds: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / max(self.seconds, 1e-9)


def answer_file(
    predictor: Asked,
    requests: Path,
    answers: Path,
    together: int = 64,
    *,
    watch: Callable[[int], None] = lambda answered: None,
) -> Done:
    """Answer every line of a file; either all answers are written or none.

    Args:
        predictor: Who answers.
        requests: A request a line, as the service takes it; empty lines are passed over.
        answers: An answer a line, in the same order.
        together: Requests that are answered with one run of the model.
        watch: Told of each part that is answered, how many requests it had.

    Raises:
        DataError: The file cannot be read, or a line is no request; the message names it.
        IntegrityError: The model fails.
        StorageError: The answers cannot be written.
    """
    started, count = time.perf_counter(), 0
    with new_file(answers) as temporary, temporary.open("w", encoding="utf-8") as stream:
        questions = _questions(predictor, requests)
        while part := list(islice(questions, together)):
            for answer in predictor.answer_all(part):
                stream.write(json.dumps(predictor.answering.record(answer), ensure_ascii=False) + "\n")
            count += len(part)
            watch(len(part))
    return Done(count, time.perf_counter() - started)


def _questions(predictor: Asked, requests: Path) -> Iterator[Any]:
    reader = RequestReader(Limits(), type(predictor.answering))
    try:
        with requests.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        yield reader.question(line)
                    except RefusedRequestError as error:
                        raise DataError(
                            f"{requests}, line {number}: the request is refused: {error.reason}",
                            "Correct it; nothing was written. The service's /openapi.json shows the form.",
                        ) from None
    except OSError as error:
        raise DataError(
            f"{requests} cannot be read: {error.strerror}", "Name a file of requests, one a line."
        ) from None
