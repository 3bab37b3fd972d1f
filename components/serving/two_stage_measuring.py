"""Two stages on held-out points, asked as clients ask: quality of each way to use them, and the time of each step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from components.evaluation.comparison import paired_bootstrap
from components.serving.two_stage import TwoStage
from components.tasks.beyond import HeldOutOutcomes

ONLY = 1e6
"""A weight under which the retrieval's scores decide nothing but what is a candidate."""
_SAMPLES = 1000


class Said(NamedTuple):
    """What two stages say to the requests of held-out points; answers under any weight follow from it.

    Attributes:
        held: The points.
        stages: The two.
        questions: Their requests, as questions.
        retrieved: The candidates of each.
        log_odds: What the ranking tells of them.
    """

    held: HeldOutOutcomes
    stages: TwoStage
    questions: list[Any]
    retrieved: list[Any]
    log_odds: list[np.ndarray]

    def answers(self, weight: float) -> list[Any]:
        """The answers under a weight; 0: the retrieval's own."""
        triples = zip(self.questions, self.retrieved, self.log_odds, strict=True)
        return [
            self.stages.answering.reordered(question, found, weight * odds if weight else np.array([]))
            for question, found, odds in triples
        ]

    def quality(self, weight: float) -> np.ndarray:
        """``(T,)``, the primary measure of each point under a weight."""
        return self.held.values(self.answers(weight))


def asked(stages: TwoStage, held: HeldOutOutcomes) -> Said:
    """Ask two stages about every held-out point, one at a time, as they are served."""
    said = Said(held, stages, [], [], [])
    for request in held.requests():
        question = stages.answering.question(request)
        (retrieved,) = stages.retrieve([question])
        said.questions.append(question)
        said.retrieved.append(retrieved)
        said.log_odds.append(stages.log_odds(question, retrieved))
    return said


def by_weight(said: Said, weights: Sequence[float]) -> dict[float, float]:
    """The mean of the primary measure under each weight."""
    return {weight: float(said.quality(weight).mean()) for weight in weights}


def figures_of(ways: Mapping[str, tuple[Said, float]], reference: str, primary: str) -> dict[str, dict[str, Any]]:
    """Quality of ways to answer the same held-out points.

    Args:
        ways: By name, what was said, and under which weight it is the answer.
        reference: The way that the others are compared with.
        primary: Key of the primary measure.

    Returns:
        By name: the primary measure; ``recall``, the share of points whose outcome is in the answer;
        ``recall_candidates``, the same of the candidates; the difference to the reference with its 95 % interval.
    """
    held = ways[reference][0].held
    answers = {name: said.answers(weight) for name, (said, weight) in ways.items()}
    values = {name: held.values(found) for name, found in answers.items()}
    compared = paired_bootstrap(values, values[reference], held.users, samples=_SAMPLES, seed=0)
    figures = {}
    for name, (said, _) in ways.items():
        places, among = held.places(answers[name]), held.places(said.retrieved)
        difference = compared[name].difference
        figures[name] = {
            primary: float(values[name].mean()),
            "recall": float(((places >= 0) & (places < held.cutoff)).mean()),
            "recall_candidates": float((among >= 0).mean()),
            "difference": difference.estimate,
            "difference_low": difference.low,
            "difference_high": difference.high,
        }
    return figures


def timed(stages: TwoStage, questions: Sequence[Any], most: int) -> dict[str, float]:
    """Latency of both steps and of the whole, from a checked request to its answer, one at a time.

    Args:
        stages: Who is asked.
        questions: What; some are asked before to warm up.
        most: Questions that are timed at most, spread over all.

    Returns:
        ``p50_ms`` and ``p95_ms`` of the whole, and the same behind ``retrieval_`` and ``ranking_``.
    """
    chosen = [questions[place] for place in np.linspace(0, len(questions) - 1, min(most, len(questions))).astype(int)]
    for question in chosen[:10]:
        stages.answer_all([question])
    steps: dict[str, list[float]] = {"retrieval_": [], "ranking_": [], "": []}
    for question in chosen:
        begin = time.perf_counter()
        (retrieved,) = stages.retrieve([question])
        between = time.perf_counter()
        stages.ranked(question, retrieved)
        end = time.perf_counter()
        for step, seconds in (("retrieval_", between - begin), ("ranking_", end - between), ("", end - begin)):
            steps[step].append(1e3 * seconds)
    return {
        f"{step}p{share}_ms": float(np.percentile(found, share)) for step, found in steps.items() for share in (50, 95)
    }
