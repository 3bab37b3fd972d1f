"""One request from the command line, checked as the service checks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.errors import DataError
from components.serving.http_schemas import RequestReader
from components.serving.limits import Limits, RefusedRequestError
from components.serving.opening import Opened


def request_of(predictor: Opened, text: str) -> Any:
    """The question that a request asks.

    Args:
        predictor: Who is asked.
        text: JSON, or the name of a file that holds it.

    Raises:
        DataError: It is no request, or the file cannot be read.
    """
    body = text.encode()
    if not text.lstrip().startswith("{"):
        try:
            body = Path(text).read_bytes()
        except OSError as error:
            raise DataError(f"{text} is neither JSON nor a file: {error.strerror}", "Example: '{\"k\": 5}'") from None
    try:
        return RequestReader(Limits(), type(predictor.answering)).question(body)
    except RefusedRequestError as error:
        raise DataError(
            f"the request is refused: {error.reason}", "The service's /openapi.json shows its form."
        ) from None
