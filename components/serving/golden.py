"""Golden requests: what a package answered where it was made, and how far another machine's answers may be off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from components.serving.asking import Asked

# Integer kernels differ between processors, in what they saturate and how they round; float ones in the last digits.
_TOLERANCE_OF_INTEGERS = 0.02
_TOLERANCE_OF_FLOATS = 1e-4


def golden_record(asked: Asked, requests: Iterable[Mapping[str, Any]], integers: bool) -> dict[str, Any]:
    """The content of ``golden.json``.

    Args:
        asked: Answers the requests.
        requests: As clients send them.
        integers: Activations are quantized.
    """
    answered = [{**request, **asked.answering.expected(asked.ask(request))} for request in requests]
    scores = np.array([score for request in answered for score in request["scores"]] or [0.0])
    share = _TOLERANCE_OF_INTEGERS if integers else _TOLERANCE_OF_FLOATS
    return {"tolerance": share * float(max(np.abs(scores).max(), 1e-3)), "requests": answered}
