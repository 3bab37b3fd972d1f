"""What is checked of a release before it may go live: its bytes, its answers, and how fast it gives them here."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.errors import BudgetError, IntegrityError
from components.storage.contract import ObjectStore

if TYPE_CHECKING:
    from components.serving.predictor import Predictor
    from components.serving.releases import Release

_WARM_UP = 30
_REQUESTS = 200
_ROUNDS = 3


class Checked(NamedTuple):
    """What was found.

    Attributes:
        files: How many files were fetched and hashed.
        golden: How many golden requests were answered as expected.
        p95_ms: 95th percentile of the latency at batch 1, one thread, in milliseconds: the best of three rounds, since
            what else the machine does can only slow it down.
        limit_ms: What the budget allows; None: it sets no limit.
    """

    files: int
    golden: int
    p95_ms: float
    limit_ms: float | None


def check_release(store: ObjectStore, release: Release, say: Callable[[str], None]) -> Checked:
    """Fetch a release into a temporary folder, hash every byte, load it, and ask it.

    Raises:
        MissingObjectError: A file is missing.
        IntegrityError: A file is damaged, or an answer is not the expected one.
        BudgetError: It is slower here than its budget allows.
    """
    from components.serving.package_folder import GOLDEN
    from components.serving.predictor import Predictor
    from components.serving.releases import fetch_release

    shown = f"{release.name}@v{release.version}"
    with tempfile.TemporaryDirectory(prefix="recstill-") as folder:
        package = fetch_release(store, release, Path(folder))
        predictor = Predictor(package)
        say(f"{shown}: signed by {release.signed_by[:12]}, {len(release.files)} files as they were signed")
        if predictor.record.get("name") != release.name:
            raise IntegrityError(
                f"{shown} holds a package of {predictor.record.get('name')!r}", "It was published under a wrong name."
            )
        golden = predictor.replay_golden()
        say(f"{golden} golden requests answered as expected")
        p95_ms = _p95_ms(predictor, json.loads((package / GOLDEN).read_bytes())["requests"])
    budget: dict[str, Any] = (predictor.record.get("params") or {}).get("budget") or {}
    limit = budget.get("max_p95_ms")
    if limit is not None and p95_ms > limit:
        raise BudgetError(
            f"{shown} answers within {p95_ms:.3f} ms (p95, batch 1, one thread) on this machine; "
            f"budget.max_p95_ms is {limit:g}",
            "Free the machine or take a faster one, and deploy again; or raise the budget and retrain.",
        )
    against = f"of {limit:g} ms" if limit is not None else "(the budget sets no limit)"
    say(f"p95 at batch 1: {p95_ms:.3f} ms {against}")
    if budget.get("max_latency_ratio") is not None:
        say("budget.max_latency_ratio was measured by the run itself: the teacher is not here to compare with")
    return Checked(len(release.files), golden, p95_ms, limit)


def _p95_ms(predictor: Predictor, requests: Sequence[Any]) -> float:
    import numpy as np

    answering = predictor.answering
    questions = [answering.question(request) for request in requests] or [answering.empty()]
    times = np.empty((_ROUNDS, _REQUESTS))
    for number in range(_WARM_UP):
        predictor.answer_all([questions[number % len(questions)]])
    for one in times:
        for number in range(_REQUESTS):
            question = questions[number % len(questions)]
            started = time.perf_counter()
            predictor.answer_all([question])
            one[number] = time.perf_counter() - started
    return float(np.percentile(times, 95, axis=1).min() * 1000)
