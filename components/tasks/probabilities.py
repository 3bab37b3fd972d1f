"""How good probabilities are: of a yes or no, or of one of K labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import log_expit, log_softmax
from scipy.stats import rankdata
from torchmetrics import Metric

from components.errors import DataError

BINS = 10


class Accuracy(Metric):
    """Share of points whose likeliest outcome is the one that was observed; of one logit, yes where it is above 0."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    right: torch.Tensor
    points: torch.Tensor

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_state("right", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("points", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, scores: torch.Tensor, batch: Any) -> None:
        """Take in ``scores`` ``(B, K)`` of an :class:`EvaluationBatch`."""
        found = (scores[:, 0] > 0).long() if scores.shape[1] == 1 else scores.argmax(1)
        self.right += (found == batch.targets).sum()
        self.points += len(batch.targets)

    def compute(self) -> torch.Tensor:
        """The share; 0 without any point."""
        return self.right / self.points.clamp(min=1)


def log_probabilities(scores: np.ndarray) -> np.ndarray:
    """``(N, K)`` logs of probabilities from logits, ``(N, 2)`` of no and yes from one logit.

    Raises:
        DataError: A score is not a number.
    """
    if not np.isfinite(scores).all():
        raise DataError("a score is not a number", "Check the weights and the exported graph.")
    scores = scores.astype(np.float64)
    if scores.shape[1] == 1:
        return np.concatenate([log_expit(-scores), log_expit(scores)], axis=1)
    found: np.ndarray = log_softmax(scores, axis=1)
    return found


def area_under_curve(scores: np.ndarray, targets: np.ndarray) -> float:
    """Chance that a yes has a greater score than a no, ties count half; nan without one of each."""
    yes = targets == 1
    many, few = int(yes.sum()), int((~yes).sum())
    if not many or not few:
        return float("nan")
    return float((rankdata(scores)[yes].sum() - many * (many + 1) / 2) / (many * few))


def calibration_error(log_probs: np.ndarray, targets: np.ndarray) -> float:
    """Expected calibration error over ten bins of equal width of the likeliest label's probability.

    Guo et al., "On Calibration of Modern Neural Networks", 2017, section 2.
    """
    sure, right = np.exp(log_probs.max(axis=1)), log_probs.argmax(axis=1) == targets
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    gap = np.bincount(place, weights=sure - right, minlength=BINS)
    return float(np.abs(gap).sum() / len(targets))


def macro_f1(found: np.ndarray, targets: np.ndarray, labels: int) -> float:
    """Mean over the labels of the harmonic mean of precision and recall; 0 for a label that is neither told nor there.

    Args:
        found: ``(N,)`` labels that were told.
        targets: ``(N,)`` labels that were observed.
        labels: How many there are; one that is nowhere in ``targets`` does not count.
    """
    right = np.bincount(targets[found == targets], minlength=labels)
    there, told = (np.bincount(column, minlength=labels) for column in (targets, found))
    return float((2 * right / np.maximum(there + told, 1))[there > 0].mean())
