"""How a model is run: in the event loop or in threads, one question at a time or several; measured as it is loaded."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

from components.serving.opening import Opened

MOST_TOGETHER = 16
INLINE_SECONDS = 0.002
"""What a run may take in the event loop, where everybody waits for it; a thread costs about 0.1 ms."""
_WORTH = 0.7
_SAME_SCORES = 1e-5
_REPEATS = 5
_INTEGER_BITS = 32

Asking = Callable[[Sequence[Any]], list[Any]]


class Plan(NamedTuple):
    """How a model is run.

    Attributes:
        alone_ms: One question, alone.
        together_ms: One question among :data:`MOST_TOGETHER`.
        together: Several questions may go into one run: it was faster, and the answers stayed what they were.
        inline: A run is so short that the event loop may wait for it.
        why: Why ``together`` is what it is.
    """

    alone_ms: float
    together_ms: float
    together: bool
    inline: bool
    why: str


def measured_plan(predictor: Opened, questions: Sequence[Any]) -> Plan:
    """Time a model with and without batches, and compare the answers.

    Args:
        predictor: The model.
        questions: Realistic ones; the golden requests of its package.
    """
    asked = list(questions) or [predictor.answering.empty()]
    asked = (asked * MOST_TOGETHER)[:MOST_TOGETHER]
    alone = _fastest(lambda: [predictor.answer_all([question]) for question in asked]) / len(asked)
    bits = int(predictor.record["choice"]["variant"].get("activation_bits", _INTEGER_BITS))
    if bits < _INTEGER_BITS:
        # Whatever they did for these questions, for others they would not.
        why = f"its activations have {bits} bits, whose scale may be shared by all rows of a run"
        return _plan(alone, alone, False, why)
    among = _fastest(lambda: predictor.answer_all(asked)) / len(asked)
    alone_answers = [predictor.answer_all([question])[0] for question in asked]
    if not all(
        predictor.answering.alike(one, other, _SAME_SCORES)
        for one, other in zip(alone_answers, predictor.answer_all(asked), strict=True)
    ):
        return _plan(alone, among, False, "answers would change")
    if among > _WORTH * alone:
        return _plan(alone, among, False, f"it saves less than {1 - _WORTH:.0%} of the time")
    return _plan(alone, among, True, f"it saves {1 - among / alone:.0%} of the time, and answers stay what they are")


class QuestionQueue:
    """Questions that wait for a thread; those that wait are answered together, where that pays. Nobody waits for more.

    Args:
        answer: Answers questions; called in the threads.
        threads: Where.
        workers: How many of the threads may be used at one time.
        most: Questions in one run; 1 where batches do not pay.
    """

    def __init__(self, answer: Asking, threads: Executor, workers: int, most: int) -> None:
        self._answer, self._threads, self._workers, self._most = answer, threads, workers, most
        self._waiting: deque[tuple[Any, asyncio.Future[Any]]] = deque()
        self._busy = 0

    async def ask(self, question: Any) -> Any:
        """The answer to one question.

        Raises:
            RecstillError: The model cannot answer it.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        self._begin()
        return await future

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._busy < self._workers:
            part = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            self._busy += 1
            running = loop.run_in_executor(self._threads, self._outcomes, [question for question, _ in part])
            running.add_done_callback(lambda done, part=part: self._ended(done, part))  # type: ignore[misc]

    def _outcomes(self, questions: list[Any]) -> list[Any | Exception]:
        try:
            return list(self._answer(questions))
        except Exception as error:
            # One bad question spoils no other one's answer.
            return [error] if len(questions) == 1 else [self._outcomes([question])[0] for question in questions]

    def _ended(
        self,
        done: asyncio.Future[list[Any | Exception]],
        part: list[tuple[Any, asyncio.Future[Any]]],
    ) -> None:
        self._busy -= 1
        for (_, future), outcome in zip(part, done.result(), strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        self._begin()


def _plan(alone: float, among: float, together: bool, why: str) -> Plan:
    return Plan(round(1e3 * alone, 4), round(1e3 * among, 4), together, alone <= INLINE_SECONDS, why)


def _fastest(run: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs: others are slowed down by what else the machine does."""
    best = float("inf")
    for _ in range(_REPEATS):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best
