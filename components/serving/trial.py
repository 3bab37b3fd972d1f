"""A candidate at work beside the live version: a share of the requests, or their shadows, and how it did."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from components.serving.metrics import Metrics
from components.serving.served_model import ServedModel

State = Literal["loading", "loaded", "refused", "expired"]
_MOST_WAITING = 32


class Trial:
    """One candidate's trial.

    Args:
        number: The candidate's unique id.
        version: Its version.
        mode: ``canary``: it answers a share of the requests. ``shadow``: it is asked too, and nobody sees its answers.
        share: Of the requests, above 0 and at most 1.
        seconds: How long from now.
    """

    def __init__(
        self, number: str, version: int, mode: Literal["canary", "shadow"], share: float, seconds: float
    ) -> None:
        self.number, self.version, self.mode, self.share = number, version, mode, share
        # A wall clock may jump; this one does not.
        self._ends = time.monotonic() + seconds
        self._state: State = "loading"
        self._lock = threading.Lock()
        self._seen = self._given = 0
        self._requests = self._errors = self._compared = 0
        self._overlaps = 0.0
        self.model: ServedModel | None = None

    @property
    def state(self) -> State:
        """Where it stands; what has expired gets no more requests, and its figures stay."""
        return "expired" if self._state != "refused" and time.monotonic() >= self._ends else self._state

    def loaded(self, model: ServedModel) -> None:
        """It verified, and gets requests from now on."""
        self.model, self._state = model, "loaded"

    def refused(self) -> None:
        """It did not verify, and never gets a request."""
        self._state = "refused"

    def takes(self) -> ServedModel | None:
        """The candidate's model when the next request is its: evenly spread, exactly the share in the long run."""
        if self.model is None or self.state != "loaded":
            return None
        with self._lock:
            self._seen += 1
            if self._seen * self.share - self._given < 1 - 1e-9:
                return None
            self._given += 1
        return self.model

    def answered(self, overlap: float | None = None) -> None:
        """It has answered a request; ``overlap`` with the live version's items, 0 to 1, where that is known."""
        with self._lock:
            self._requests += 1
            if overlap is not None:
                self._compared += 1
                self._overlaps += overlap

    def failed(self) -> None:
        """It was asked, and failed."""
        with self._lock:
            self._requests += 1
            self._errors += 1

    def summary(self) -> dict[str, Any]:
        """What ``/model`` shows under ``candidate``."""
        with self._lock:
            overlap = round(self._overlaps / self._compared, 4) if self._compared else None
            requests, errors = self._requests, self._errors
        return {
            "number": self.number,
            "version": self.version,
            "mode": self.mode,
            "state": self.state,
            "requests": requests,
            "errors": errors,
            "p95_ms": self.model.latencies.p95_ms() if self.model is not None else None,
            "overlap": overlap,
        }


class ShadowRunner:
    """Asks a candidate what the live version has answered, aside, and never at its cost: what is too much is left out.

    Args:
        metrics: Where requests and failures are counted.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._free = threading.Semaphore(_MOST_WAITING)

    def ask(self, trial: Trial, model: ServedModel, questions: Sequence[Any], live: list[Any]) -> None:
        """Have the candidate answer too, soon, if there is room."""
        if self._free.acquire(blocking=False):
            self._thread.submit(self._run, trial, model, questions, live)

    def stop(self) -> None:
        """End the thread; what waits is left out."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _run(self, trial: Trial, model: ServedModel, questions: Sequence[Any], live: list[Any]) -> None:
        try:
            started = time.perf_counter()
            answers = model.answer_now(questions)
            model.latencies.add(time.perf_counter() - started)
            trial.answered(_overlap(model, live, answers))
            self._metrics.requests.labels("shadow", model.label, "shadow").inc()
        # Whatever is wrong with a candidate is its failure, and nobody else's.
        except Exception:
            trial.failed()
            self._metrics.candidate_errors.labels("shadow").inc()
        finally:
            self._free.release()


def _overlap(model: ServedModel, live: Sequence[Any], shadow: Sequence[Any]) -> float:
    """Mean share of the live version's answers that the candidate gives too."""
    overlap = model.predictor.answering.overlap
    return sum(overlap(one, other) for one, other in zip(live, shadow, strict=True)) / len(live)
