"""The version that answers, the candidate beside it, and what was refused; swapped while requests run."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from components.serving.event_log import log_event
from components.serving.limits import RefusedRequestError
from components.serving.metrics import Metrics
from components.serving.predictor import Question, Recommendations
from components.serving.served_model import ServedModel
from components.serving.trial import ShadowRunner, Trial

_KEPT_REFUSALS = 10


class LiveModel:
    """What the service answers with.

    A request takes the live version once, at its start, and keeps it: a swap makes nobody wait and drops nothing, and
    the old version goes when its last request has ended.

    Args:
        metrics: What happens is counted there.
        workers: Threads for runs that are too long for the event loop.
    """

    def __init__(self, metrics: Metrics, workers: int = 1) -> None:
        self.metrics = metrics
        self.workers = workers
        self.threads = ThreadPoolExecutor(workers, thread_name_prefix="model")
        self.current: ServedModel | None = None
        self.trial: Trial | None = None
        self._shadows = ShadowRunner(metrics)
        self._refusals: deque[dict[str, Any]] = deque(maxlen=_KEPT_REFUSALS)
        self._since: str | None = None
        self._swapping = threading.Lock()

    def swap(self, model: ServedModel, **fields: str | int | float | Path) -> None:
        """Answer with ``model`` from now on; ``fields`` go into the log line."""
        with self._swapping:
            before, self.current = self.current, model
            self._since = _now()
            if before is not None and before.label != model.label:
                self.metrics.live.remove(before.label)
            self.metrics.live.labels(model.label).set(1)
        self.metrics.reloads.inc()
        log_event("swapped", {"version": model.label, "before": before.label if before else None, **fields})

    def refuse(self, role: Literal["live", "candidate"], version: str, reason: str) -> None:
        """Remember that a release was not loaded; whatever is live goes on."""
        self.metrics.refusals.labels(role).inc()
        self._refusals.append({"role": role, "version": version, "reason": reason, "at": _now()})
        going_on = self.current.label if self.current else "nothing"
        fields = {"role": role, "version": version, "reason": reason, "live": going_on}
        log_event("refused", fields, logging.ERROR)

    async def answer(self, questions: Sequence[Question], endpoint: str) -> tuple[str, list[Recommendations]]:
        """Answer questions with one version, and say which.

        Raises:
            RefusedRequestError: No version is live yet.
            RecstillError: The live version cannot answer.
        """
        live, trial = self.current, self.trial
        if live is None:
            raise RefusedRequestError(503, "not_ready", "no version is live yet", {"retry-after": "1"})
        chosen = trial.takes() if trial is not None else None
        if trial is not None and chosen is not None and trial.mode == "canary":
            answers = await self._canary(trial, chosen, questions)
            if answers is not None:
                self.metrics.requests.labels(endpoint, chosen.label, "canary").inc()
                return chosen.label, answers
        answers = await _answered(live, questions)
        self.metrics.requests.labels(endpoint, live.label, "live").inc()
        if trial is not None and chosen is not None and trial.mode == "shadow":
            self._shadows.ask(trial, chosen, questions, answers)
        return live.label, answers

    def describe(self) -> dict[str, Any]:
        """What ``/model`` shows."""
        live, trial = self.current, self.trial
        nothing = {"name": None, "version": None, "label": None}
        return {
            **(live.facts if live is not None else nothing),
            "live_since": self._since,
            "p95_ms": live.latencies.p95_ms() if live is not None else None,
            "candidate": trial.summary() if trial is not None else None,
            "refusals": list(self._refusals),
        }

    def stop(self) -> None:
        """End the threads, after what they are doing."""
        self._shadows.stop()
        self.threads.shutdown(wait=True, cancel_futures=True)

    async def _canary(
        self, trial: Trial, model: ServedModel, questions: Sequence[Question]
    ) -> list[Recommendations] | None:
        """A candidate's answers; None when it fails, since its failure must be no user's."""
        try:
            answers = await _answered(model, questions)
        except Exception as error:
            trial.failed()
            self.metrics.candidate_errors.labels("canary").inc()
            log_event("candidate_failed", {"version": model.label, "reason": str(error)[:200]}, logging.WARNING)
            return None
        trial.answered()
        return answers


async def _answered(model: ServedModel, questions: Sequence[Question]) -> list[Recommendations]:
    return [await model.answer(questions[0])] if len(questions) == 1 else await model.answer_all(questions)


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
