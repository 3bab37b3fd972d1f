"""The angle between the gradient that cached labels give a student and the one of the whole distribution.

Gradients are those of the soft term alone with respect to all parameters, summed over as many points as are named. The
noise of labels that are drawn shrinks with the number of points, a bias does not; so both are shown: over the points of
one training step, and over 65,536 points.
"""

from __future__ import annotations

import math

import torch

from components.networks.contract import PredictionNetwork
from components.tasks.batch import Batch
from components.training.linear_head import linear_head_loss
from components.training.losses.distributions import PairWeights
from components.training.objectives import SoftObjective
from tests.benchmarks.soft_labels.recipe import Bench, optimization

MANY_POINTS = 65_536
_DRAWS = 3
_SOFT = PairWeights(hard=0.0, soft=1.0)


def angles(bench: Bench, student: PredictionNetwork, whole, others: dict) -> dict[str, tuple[float, float]]:
    """Degrees, of one step and of many points, a way of storing; means over a few draws of batches.

    Args:
        bench: The data set.
        student: In evaluation mode.
        whole: Labels that hold all of the distribution.
        others: Labels by name.
    """
    batch_size = optimization(bench.name, student=True).batch_size
    of_step: dict[str, list[float]] = {name: [] for name in others}
    of_many: dict[str, list[float]] = {name: [] for name in others}
    for draw in range(_DRAWS):
        batches = bench.task.training_batches(batch_size, seed=100, epoch=draw)
        total, totals = torch.zeros(()), {name: torch.zeros(()) for name in others}
        points = 0
        for batch in batches:
            true = _gradient(student, batch, whole)
            total = total + true
            for name, labels in others.items():
                found = _gradient(student, batch, labels)
                totals[name] = totals[name] + found
                if points == 0:
                    of_step[name].append(_degrees(true, found))
            points += len(batch.points)
            if points >= MANY_POINTS:
                break
        for name in others:
            of_many[name].append(_degrees(total, totals[name]))
    return {name: (_mean(of_step[name]), _mean(of_many[name])) for name in others}


def _gradient(student: PredictionNetwork, batch: Batch, labels) -> torch.Tensor:
    objective = SoftObjective(batch.targets, labels.labels(batch.points).at_temperature(1.0), _SOFT)
    assert student.head is not None
    student.zero_grad()
    linear_head_loss(student.encode(*batch.inputs), student.head, objective).backward()
    parts = [parameter.grad.flatten() for parameter in student.parameters() if parameter.grad is not None]
    return torch.cat(parts)


def _degrees(one: torch.Tensor, other: torch.Tensor) -> float:
    cosine = torch.cosine_similarity(one.double(), other.double(), dim=0).clamp(-1, 1)
    return math.degrees(math.acos(float(cosine)))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
