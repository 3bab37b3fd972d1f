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

from components.provenance.recalls import Recall
from components.serving.event_log import log_event
from components.serving.limits import RefusedRequestError
from components.serving.metrics import Metrics
from components.serving.served_model import ServedModel
from components.serving.trial import ShadowRunner, Trial

_KEPT_REFUSALS = 10
_TOLD_AGAIN_SECONDS = 300.0


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
        self._recalled: tuple[Recall, ...] = ()
        self._told_recalled = 0.0
        self.wanted: tuple[str, tuple[Recall, ...]] | None = None
        """What is to answer, and was not loaded since it has inherited these recalls."""
        self._swapping = threading.Lock()

    def swap(self, model: ServedModel, **fields: str | int | float | Path) -> None:
        """Answer with ``model`` from now on; ``fields`` go into the log line."""
        with self._swapping:
            before, self.current = self.current, model
            self._since = _now()
            if before is not None and self._recalled:
                self.metrics.recalled.remove(before.label, "yes")
            self._recalled = ()
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

    def tell_recalled(self, found: Sequence[Recall]) -> None:
        """What answers has inherited these recalls, or none: it goes on, and says so loudly."""
        live = self.current
        if live is None:
            return
        again = time.monotonic() - self._told_recalled >= _TOLD_AGAIN_SECONDS
        if found and (tuple(found) != self._recalled or again):
            self._told_recalled = time.monotonic()
            self.metrics.recalled.labels(live.label, "yes").set(1)
            reason = f"it goes on until another version is live or the service starts again; {found[0]}"
            log_event("recalled", {"version": live.label, "reason": reason}, logging.ERROR)
        elif self._recalled and not found:
            self.metrics.recalled.remove(live.label, "yes")
            log_event("recall_lifted", {"version": live.label})
        self._recalled = tuple(found)

    def tell_not_loaded(self, version: str, found: Sequence[Recall]) -> None:
        """What is to answer has inherited these recalls and was not loaded; with none, that is over."""
        before = self.wanted
        self.wanted = (version, tuple(found)) if found else None
        if before is not None and (self.wanted is None or before[0] != version):
            self.metrics.recalled.remove(before[0], "no")
        if found:
            self.metrics.recalled.labels(version, "no").set(1)

    def readiness(self) -> dict[str, Any]:
        """What ``/readyz`` shows. Of recalls the numbers alone: their reasons are for those who may ask ``/model``."""
        live, wanted = self.current, self.wanted
        record: dict[str, Any] = {"ready": live is not None, "version": live.label if live is not None else None}
        if live is not None and self._recalled:
            record["recalled"] = [one.number for one in self._recalled]
        if wanted is not None:
            record["instead_of"] = {"version": wanted[0], "recalled": [one.number for one in wanted[1]]}
        if live is None:
            record["reason"] = self._why_nothing()
        return record

    def _why_nothing(self) -> str:
        if self.wanted is None:
            return "no version is live yet" if not self._refusals else "what is live was refused: /model says why"
        numbers = ", ".join(str(one.number) for one in self.wanted[1])
        return f"{self.wanted[0]} is recalled (recall {numbers}), and no version that was live before can be served"

    async def answer(self, questions: Sequence[Any], endpoint: str) -> tuple[ServedModel, list[Any]]:
        """Answer questions with one version, and say which: by then another one may be live.

        Raises:
            RefusedRequestError: No version is live yet.
            RecstillError: The live version cannot answer.
        """
        live, trial = self.current, self.trial
        if live is None:
            raise RefusedRequestError(503, "not_ready", self._why_nothing(), {"retry-after": "1"})
        chosen = trial.takes() if trial is not None else None
        if trial is not None and chosen is not None and trial.mode == "canary":
            answers = await self._canary(trial, chosen, questions)
            if answers is not None:
                self.metrics.requests.labels(endpoint, chosen.label, "canary").inc()
                return chosen, answers
        answers = await _answered(live, questions)
        self.metrics.requests.labels(endpoint, live.label, "live").inc()
        if trial is not None and chosen is not None and trial.mode == "shadow":
            self._shadows.ask(trial, chosen, questions, answers)
        return live, answers

    def describe(self) -> dict[str, Any]:
        """What ``/model`` shows."""
        live, trial, wanted = self.current, self.trial, self.wanted
        nothing = {"name": None, "version": None, "label": None}
        return {
            **(live.facts if live is not None else nothing),
            "live_since": self._since,
            "p95_ms": live.latencies.p95_ms() if live is not None else None,
            "candidate": trial.summary() if trial is not None else None,
            "recalled": [one.record() for one in self._recalled],
            "instead_of": {"version": wanted[0], "recalled": [one.record() for one in wanted[1]]} if wanted else None,
            "refusals": list(self._refusals),
        }

    def stop(self) -> None:
        """End the threads, after what they are doing."""
        self._shadows.stop()
        self.threads.shutdown(wait=True, cancel_futures=True)

    async def _canary(self, trial: Trial, model: ServedModel, questions: Sequence[Any]) -> list[Any] | None:
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


async def _answered(model: ServedModel, questions: Sequence[Any]) -> list[Any]:
    return [await model.answer(questions[0])] if len(questions) == 1 else await model.answer_all(questions)


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
