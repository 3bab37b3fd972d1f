"""A loaded package as the service uses it: checked, replayed, timed, and able to answer."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from components.serving.batching import INLINE_SECONDS, MOST_TOGETHER, Plan, QuestionQueue, measured_plan
from components.serving.opening import Opened, open_package
from components.serving.package_folder import GOLDEN, RECORD, PackageFolder

_KEPT_TIMES = 2000
_SECONDS_AN_ITEM = 1e-6  # To build one recommended item.


class Latencies:
    """The newest durations of answers."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_KEPT_TIMES)

    def add(self, seconds: float) -> None:
        """Remember one."""
        self._seconds.append(seconds)

    def p95_ms(self) -> float | None:
        """Milliseconds that 95 % of the newest answers took at most; None without any."""
        # Copied first: another thread may add to it.
        kept = list(self._seconds)
        return round(1e3 * float(np.percentile(kept, 95)), 3) if kept else None


class ServedModel:
    """A model that answers. Everything it needs is in memory: the folder may go once this is made.

    Args:
        folder: The package.
        threads: Where runs that are too long for the event loop happen.
        workers: How many of those threads one model may use.
        version: As it was registered; None for a package alone.
        identity: What ``/model`` tells of it besides: of the release and its attestation.
        origins: Digests of all that it came from, for recalls to find.

    Attributes:
        label: ``movielens@v3``, or ``movielens`` for a package alone.
        plan: How it is run.
        latencies: Of its answers.
        facts: JSON-able; what ``/model`` tells of it.

    Raises:
        DataError: The folder is no package.
        IntegrityError: A byte is not what was made, or the golden requests are answered otherwise.
    """

    def __init__(
        self,
        folder: Path,
        threads: ThreadPoolExecutor,
        workers: int = 1,
        *,
        version: int | None = None,
        identity: dict[str, Any] | None = None,
        origins: frozenset[str] = frozenset(),
    ) -> None:
        self.predictor = open_package(folder)
        golden = self.predictor.replay_golden()
        questions = _golden_questions(self.predictor, PackageFolder(folder))
        self.plan: Plan = measured_plan(self.predictor, questions)
        self.latencies = Latencies()
        record = self.predictor.record
        self.name: str = record["name"]
        self.version = version
        self.origins = origins
        self.label = self.name if version is None else f"{self.name}@v{version}"
        self._threads = threads
        self._queue = QuestionQueue(
            self.predictor.answer_all, threads, workers, MOST_TOGETHER if self.plan.together else 1
        )
        self.facts: dict[str, Any] = {
            "name": self.name,
            "version": version,
            "label": self.label,
            "package": hashlib.sha256((folder / RECORD).read_bytes()).hexdigest(),
            "files": {name: entry["sha256"] for name, entry in record["files"].items()},
            "lineage": record["lineage"],
            "task": record["task"],
            "items": record["items"],
            "model_bytes": record["model_bytes"],
            "chosen": record["choice"]["chosen"],
            "golden_requests": golden,
            "execution": self.plan._asdict(),
            **(identity or {}),
        }

    async def answer(self, question: Any) -> Any:
        """The answer to one question.

        Raises:
            RecstillError: The model cannot answer it.
        """
        started = time.perf_counter()
        if self.plan.inline:
            answer = self.predictor.answer_all([question])[0]
        else:
            answer = await self._queue.ask(question)
        self.latencies.add(time.perf_counter() - started)
        return answer

    async def answer_all(self, questions: Sequence[Any]) -> list[Any]:
        """The answers to a batch.

        Raises:
            RecstillError: The model cannot answer it.
        """
        started = time.perf_counter()
        row = self.plan.together_ms if self.plan.together else self.plan.alone_ms
        expected = (
            len(questions) * row / 1e3
            + sum(self.predictor.answering.size(question) for question in questions) * _SECONDS_AN_ITEM
        )
        if expected <= INLINE_SECONDS:
            answers = self.answer_now(questions)
        else:
            answers = await asyncio.get_running_loop().run_in_executor(self._threads, self.answer_now, questions)
        self.latencies.add(time.perf_counter() - started)
        return answers

    def answer_now(self, questions: Sequence[Any]) -> list[Any]:
        """The answers to questions, in this thread."""
        most = MOST_TOGETHER if self.plan.together else 1
        parts = (questions[start : start + most] for start in range(0, len(questions), most))
        return [answer for part in parts for answer in self.predictor.answer_all(part)]


def _golden_questions(predictor: Opened, package: PackageFolder) -> list[Any]:
    """The golden requests that need the model, as questions."""
    answering = predictor.answering
    questions = [answering.question(request) for request in json.loads(package.read(GOLDEN))["requests"]]
    return [question for question in questions if answering.needs_model(answering.parse(question))]
