"""Batches: used where they were measured to pay and answers stay what they are; slow models run in threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from components.data.dataset import PreparedDataset
from components.errors import DataError
from components.serving import served_model
from components.serving.batching import MOST_TOGETHER, QuestionQueue, measured_plan
from components.serving.http_app import service_app
from components.serving.limits import Limits
from components.serving.live_model import LiveModel
from components.serving.metrics import Metrics
from components.serving.predictor import Predictor
from components.serving.served_model import ServedModel
from components.tasks.recommending import Question, Recommendations
from tests.unit.serving.test_http_following import other_package

__all__ = ["other_package"]

RUN_SECONDS = 0.004


class SlowPredictor(Predictor):
    """Takes its time for each run, however many questions it is asked."""

    def answer_all(self, questions: Sequence[Question]) -> list[Recommendations]:
        time.sleep(RUN_SECONDS)
        return super().answer_all(questions)


class UnsteadyPredictor(SlowPredictor):
    """Answers several questions otherwise than one."""

    def answer_all(self, questions: Sequence[Question]) -> list[Recommendations]:
        answers = super().answer_all(questions)
        return [answer._replace(items=answer.items[::-1]) for answer in answers] if len(questions) > 1 else answers


@pytest.fixture(scope="module")
def questions(prepared: PreparedDataset) -> list[Question]:
    ids = prepared.catalogue["id"].to_list()
    random = np.random.default_rng(0)
    return [Question([ids[item] for item in random.integers(0, len(ids), size)]) for size in (1, 3, 8, 12)]


def test_a_model_with_integer_activations_is_never_asked_for_several(package: Path, questions: list[Question]) -> None:
    plan = measured_plan(SlowPredictor(package), questions)
    assert not plan.together
    assert "8 bits" in plan.why


def test_a_model_that_gains_by_it_is(other_package: Path, questions: list[Question]) -> None:
    plan = measured_plan(SlowPredictor(other_package), questions)
    assert plan.together
    assert not plan.inline
    assert plan.alone_ms > 3 * plan.together_ms


def test_a_model_whose_answers_change_is_not(other_package: Path, questions: list[Question]) -> None:
    plan = measured_plan(UnsteadyPredictor(other_package), questions)
    assert not plan.together
    assert plan.why == "answers would change"


def test_answers_together_are_the_answers_alone(other_package: Path, questions: list[Question]) -> None:
    predictor = Predictor(other_package)
    asked = [*questions, Question([]), Question(["unknown"], 3), Question(questions[2].history, 4, exclude_seen=False)]
    together = predictor.answer_all(asked)
    for question, answer in zip(asked, together, strict=True):
        alone = predictor.recommend(
            question.history, question.k, exclude_seen=question.exclude_seen, exclude=question.exclude
        )
        assert [item.id for item in alone.items] == [item.id for item in answer.items]
        assert (alone.unknown, alone.from_popularity) == (answer.unknown, answer.from_popularity)
        assert np.allclose([item.score for item in alone.items], [item.score for item in answer.items], rtol=1e-5)


def answered(questions: Sequence[Question]) -> list[Recommendations]:
    if any(question.k < 1 for question in questions):
        raise DataError("bad")
    return [Recommendations([], [question.history[0]], False) for question in questions]


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (1, 4), (3, 4)])
def test_whoever_waits_is_answered_in_one_run_and_with_the_right_answer(workers: int, most: int) -> None:
    sizes: list[int] = []
    at_once: list[int] = []
    running = Counter[str]()
    lock = threading.Lock()

    def answer(questions: Sequence[Question]) -> list[Recommendations]:
        with lock:
            running["now"] += 1
            at_once.append(running["now"])
            sizes.append(len(questions))
        time.sleep(0.01)
        with lock:
            running["now"] -= 1
        return answered(questions)

    async def ask() -> list[Recommendations]:
        with ThreadPoolExecutor(8) as threads:
            queue = QuestionQueue(answer, threads, workers, most)
            return await asyncio.gather(*(queue.ask(Question([str(number)])) for number in range(13)))

    assert [answer.unknown for answer in asyncio.run(ask())] == [[str(number)] for number in range(13)]
    assert sum(sizes) == 13
    assert max(sizes) == most
    assert max(at_once) <= workers


def test_a_question_that_fails_spoils_no_other_one() -> None:
    async def ask() -> list[Recommendations | BaseException]:
        with ThreadPoolExecutor(1) as threads:
            queue = QuestionQueue(answered, threads, 1, 8)
            asked = [Question(["a"]), Question(["b"], 0), Question(["c"]), Question(["d"])]
            return await asyncio.gather(*(queue.ask(one) for one in asked), return_exceptions=True)

    found = asyncio.run(ask())
    assert isinstance(found[1], DataError)
    assert [answer.unknown for answer in found if isinstance(answer, Recommendations)] == [["a"], ["c"], ["d"]]


def served_slowly(package: Path, limits: Limits, bodies: list[object], path: str) -> list[httpx.Response]:
    live = LiveModel(Metrics(), workers=2)
    live.swap(ServedModel(package, live.threads, 2))

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(service_app(live, limits))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await asyncio.gather(*(client.post(path, json=body) for body in bodies))

    found = asyncio.run(ask())
    live.stop()
    return found


def test_a_slow_model_leaves_the_event_loop_free_and_its_queue_is_bounded(
    other_package: Path, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Predictor(other_package).recommend(questions[3].history)
    monkeypatch.setattr(served_model, "open_package", SlowPredictor)
    found = served_slowly(other_package, Limits(concurrency=8), [{"history": questions[3].history}] * 30, "/recommend")
    statuses = Counter(answer.status_code for answer in found)
    assert statuses == {200: 8, 503: 22}
    for answer in found:
        if answer.status_code == 503:
            assert (answer.json()["error"], answer.headers["retry-after"]) == ("busy", "1")
        else:
            items = [item["item"] for item in answer.json()["recommendations"]]
            assert items == [item.id for item in expected.items]


def test_a_batch_is_cut_into_runs_that_pay(
    other_package: Path, questions: list[Question], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Counting(SlowPredictor):
        def answer_all(self, questions: Sequence[Question]) -> list[Recommendations]:
            sizes.append(len(questions))
            return super().answer_all(questions)

    monkeypatch.setattr(served_model, "open_package", Counting)
    asked = {"requests": [{"history": questions[number % 4].history} for number in range(40)]}
    (found,) = served_slowly(other_package, Limits(), [asked], "/recommend/batch")
    assert len(found.json()["answers"]) == 40
    assert sizes[-3:] == [MOST_TOGETHER, MOST_TOGETHER, 40 - 2 * MOST_TOGETHER]
