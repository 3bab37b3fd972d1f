"""How good probabilities of a yes are, over rows of many users.

The area under the curve is no mean of its rows: :func:`influences` gives each row's part in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import expit
from scipy.stats import rankdata
from torchmetrics import Metric

from components.tasks.probabilities import BINS, area_under_curve, log_probabilities


class AreaUnderCurve(Metric):
    """Chance that a yes has a greater score than a no, over all rows."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    scores: list[torch.Tensor]
    targets: list[torch.Tensor]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, scores: torch.Tensor, batch: Any) -> None:
        """Take in ``scores`` ``(B, 1)`` of an :class:`EvaluationBatch`."""
        self.scores.append(scores[:, 0].detach().float())
        self.targets.append(batch.targets.detach())

    def compute(self) -> torch.Tensor:
        """The area; 0 without a yes and a no."""
        scores, targets = (torch.cat(list(part)).cpu().numpy() for part in (self.scores, self.targets))
        return torch.tensor(np.nan_to_num(area_under_curve(scores, targets)))


def influences(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """``(N,)`` float64 values with the area under the curve as their mean, resampled as well as as they are.

    A yes is worth the share of the no below it, a no the share of the yes above it (ties half), each taken from the
    area and stretched by N over the number of its kind: the first-order part of the U-statistic, whose resampled mean
    is a resampled area up to terms of order 1 / N. DeLong et al., "Comparing the areas under two or more correlated
    receiver operating characteristic curves", Biometrics 1988.

    Args:
        scores: ``(N,)``.
        targets: ``(N,)``, 0 or 1, some of each.
    """
    yes = targets == 1
    many, few = int(yes.sum()), int((~yes).sum())
    ranks = rankdata(scores)
    below = np.where(yes, 0.0, 1.0)
    # A row's place among those of its own kind is taken from its place among all.
    below[yes] = (ranks[yes] - rankdata(scores[yes])) / few
    below[~yes] = 1 - (ranks[~yes] - rankdata(scores[~yes])) / many
    area = below[yes].mean()
    found: np.ndarray = area + (below - area) * len(scores) / np.where(yes, many, few)
    return found


def area_by_group(scores: np.ndarray, targets: np.ndarray, groups: np.ndarray) -> float:
    """Mean area under the curve of the groups that have a yes and a no, weighed by their rows; nan without one.

    Zhu et al., "Optimized Cost per Click in Taobao Display Advertising", KDD 2017, section 4.1.
    """
    _, group = np.unique(groups, return_inverse=True)
    order = np.lexsort((scores, group))
    scores, targets, group = scores[order], targets[order], group[order]
    rows = np.bincount(group)
    first = np.cumsum(rows) - rows
    # Ranks within a group, those of equal scores averaged.
    place = np.arange(len(scores)) - first[group] + 1.0
    new = np.concatenate([[True], (np.diff(scores) != 0) | (np.diff(group) != 0)])
    run = np.cumsum(new) - 1
    rank = (np.bincount(run, weights=place) / np.bincount(run))[run]
    yes = np.bincount(group, weights=targets)
    no = rows - yes
    both = (yes > 0) & (no > 0)
    if not both.any():
        return float("nan")
    sums = np.bincount(group, weights=rank * targets)
    area = (sums[both] - yes[both] * (yes[both] + 1) / 2) / (yes[both] * no[both])
    return float(np.average(area, weights=rows[both]))


def probability_figures(scores: np.ndarray, targets: np.ndarray, users: np.ndarray) -> dict[str, float]:
    """All figures of scores ``(N, 1)``.

    Returns:
        ``auc``; ``group_auc`` by user; ``log_loss`` in nats; ``normalised_entropy``, the log loss over that of the
        share of yes alone (He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", 2014, section 3);
        ``calibration_error`` over ten bins of equal width of the probability of a yes; ``calibration``, the mean
        probability over the share of yes.

    Raises:
        DataError: A score is not a number.
    """
    known = log_probabilities(scores)
    share, probability = float(targets.mean()), expit(scores[:, 0].astype(np.float64))
    loss = float(-known[np.arange(len(targets)), targets].mean())
    entropy = -(share * np.log(share) + (1 - share) * np.log(1 - share)) if 0 < share < 1 else float("nan")
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    gap = np.bincount(place, weights=probability - targets, minlength=BINS)
    return {
        "auc": area_under_curve(scores[:, 0], targets),
        "group_auc": area_by_group(scores[:, 0], targets, users),
        "log_loss": loss,
        "normalised_entropy": loss / entropy,
        "calibration_error": float(np.abs(gap).sum() / len(targets)),
        "calibration": float(probability.mean() / share) if share else float("nan"),
    }
