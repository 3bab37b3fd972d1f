"""The losses with their gradients with respect to the logits, in closed form and in place.

Over a catalogue the logits are by far the largest thing in training. Automatic differentiation would keep several
tensors of their size; here a few rows of logits turn into the gradient of their loss without leaving the processor's
cache. :mod:`components.training.losses` states the same losses plainly.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from components.tasks.batch import LEAST, Pairs, pairs_of
from components.training.losses.distributions import PairWeights, cross_entropy, distillation, observed

if TYPE_CHECKING:
    from components.soft_labels.labels import SoftLabels


class Objective(ABC):
    """What the logits of N prediction points are judged by."""

    @abstractmethod
    def values(self, logits: torch.Tensor) -> torch.Tensor:
        """Losses ``(N,)`` of logits ``(N, K)``, differentiable."""

    @abstractmethod
    def differentiate_(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """Overwrite the logits of some points with the gradient of the sum of their losses.

        Args:
            logits: ``(n, K)`` of the points ``rows``; holds the gradient afterwards.
            rows: Which of the N points.

        Returns:
            The sum of the losses, a scalar.
        """


class HardObjective(Objective):
    """Cross entropy with the observed outcome.

    Args:
        targets: See :func:`components.training.losses.distributions.cross_entropy`.
        smoothing: See there.
        weight: Of the loss.
    """

    def __init__(self, targets: torch.Tensor, smoothing: float = 0.0, weight: float = 1.0) -> None:
        self.targets, self.smoothing, self.weight = targets, smoothing, weight

    def values(self, logits: torch.Tensor) -> torch.Tensor:
        """Losses ``(N,)`` of logits ``(N, K)``, differentiable."""
        return self.weight * cross_entropy(logits, self.targets, self.smoothing)

    def differentiate_(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """The gradient is ``weight * (softmax(logits) - y)``."""
        targets = observed(self.targets[rows], logits.dtype)
        aimed = _smoothed_logit(logits, targets, self.smoothing)
        largest = logits.amax(1, keepdim=True)
        mass = logits.sub_(largest).exp_().sum(1, keepdim=True)
        value = (largest + mass.log() - aimed).sum()
        logits.div_(mass / self.weight)
        _subtract_labels_(logits, targets, self.smoothing, self.weight)
        return value * self.weight


class SoftObjective(Objective):
    """Cross entropy with the observed outcome, and divergence from the teacher's cached distribution.

    Args:
        targets: See :func:`components.training.losses.distributions.cross_entropy`.
        labels: The teacher's distribution at ``weights.temperature``, N rows.
        weights: Of both terms, and the temperature.
        smoothing: Label smoothing of the hard term.
    """

    def __init__(self, targets: torch.Tensor, labels: SoftLabels, weights: PairWeights, smoothing: float = 0.0) -> None:
        self.targets, self.labels, self.weights, self.smoothing = targets, labels, weights, smoothing

    def values(self, logits: torch.Tensor) -> torch.Tensor:
        """Losses ``(N,)`` of logits ``(N, K)``, differentiable."""
        return distillation(logits, self.targets, self.labels, self.weights, self.smoothing)

    def differentiate_(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """With student p and teacher q: ``hard * (p - y) + soft * T * (p_T - q_T)``.

        Where only k outcomes of the teacher are known, the mass that is left pulls on all others in proportion to
        the student's own probabilities: ``q_T = tail * p_T / (mass of p_T outside the k)`` there.
        """
        hard, soft, temperature = self.weights
        if temperature == 1.0 or soft == 0.0 or hard == 0.0:
            return self._differentiate_once_(logits, rows, hard, soft)
        scaled = logits.clone()
        value = self._differentiate_once_(scaled, rows, 0.0, soft)
        value += self._differentiate_once_(logits, rows, hard, 0.0)
        logits.add_(scaled)
        return value

    def _differentiate_once_(self, logits: torch.Tensor, rows: slice, hard: float, soft: float) -> torch.Tensor:
        """Both terms at once, when one pass of exponentials serves them."""
        if soft == 0.0:
            value = HardObjective(self.targets, self.smoothing).differentiate_(logits, rows)
            logits.mul_(hard)
            return value * hard
        temperature = self.weights.temperature
        targets = observed(self.targets[rows], logits.dtype)
        aimed = _smoothed_logit(logits, targets, self.smoothing) if hard else None
        if temperature != 1.0:
            logits.div_(temperature)
        if self.labels.ids is None:
            softly = self._soft_dense_
        else:
            softly = self._soft_sample_ if self.labels.tail is None else self._soft_top_k_
        # What the soft term adds in the loss and in the gradient, on top of the hard term's share of the softmax.
        divergence, total = softly(logits, rows, hard, soft * temperature)
        value = soft * temperature**2 * divergence
        if aimed is not None:
            value = value + hard * (total - aimed).sum()
            _subtract_labels_(logits, targets, self.smoothing, hard)
        return value

    def _soft_dense_(
        self, logits: torch.Tensor, rows: slice, hard: float, pull: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`_soft_top_k_`, with all K outcomes known."""
        known = self.labels.log_probs[rows].to(logits.dtype)
        teacher = known.exp()
        total = torch.logsumexp(logits, dim=1, keepdim=True)
        logits.sub_(total)
        divergence = (torch.xlogy(teacher, teacher) - teacher * logits).sum()
        logits.exp_().mul_(hard + pull * teacher.sum(1, keepdim=True)).sub_(teacher, alpha=pull)
        return divergence, total

    def _soft_sample_(
        self, logits: torch.Tensor, rows: slice, hard: float, pull: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`_soft_top_k_`, with k outcomes that stand for all: the same passes as without a teacher."""
        assert self.labels.ids is not None
        ids, known = self.labels.ids[rows], self.labels.log_probs[rows].to(logits.dtype)
        teacher = known.exp()
        at_ids = logits.gather(1, ids)
        largest = logits.amax(1, keepdim=True)
        mass = logits.sub_(largest).exp_().sum(1, keepdim=True)
        total = largest + mass.log()
        divergence = (torch.xlogy(teacher, teacher) - teacher * (at_ids - total)).sum()
        logits.mul_((hard + pull * teacher.sum(1, keepdim=True)) / mass)
        logits.scatter_add_(1, ids, -pull * teacher)
        return divergence, total

    def _soft_top_k_(
        self, logits: torch.Tensor, rows: slice, hard: float, pull: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn logits into ``hard * p + pull * (p - q)``.

        Returns:
            The summed divergence, and the log of the sum of the exponentials ``(n, 1)``.
        """
        ids, tail = self.labels.ids, self.labels.tail
        assert ids is not None
        ids, known = ids[rows], self.labels.log_probs[rows].to(logits.dtype)
        teacher = known.exp()
        left = torch.zeros_like(known[:, :1]) if tail is None else tail[rows].to(logits.dtype).exp().unsqueeze(1)
        top = logits.gather(1, ids)
        # The k leave the row, so that the mass outside them is summed by itself and never a difference.
        logits.scatter_(1, ids, -torch.inf)
        largest = logits.amax(1, keepdim=True)
        largest = torch.where(largest == -torch.inf, top.amax(1, keepdim=True), largest)
        mass = logits.sub_(largest).exp_().sum(1, keepdim=True)
        left = torch.where(mass > 0, left, 0.0)
        outside = largest + mass.log()
        total = torch.logaddexp(torch.logsumexp(top, dim=1, keepdim=True), outside)
        outside = torch.where(mass > 0, outside - total, 0.0)
        top = top - total
        divergence = (torch.xlogy(teacher, teacher) - teacher * top).sum()
        divergence = divergence + (torch.xlogy(left, left) - left * outside).sum()
        share = hard + pull * (teacher.sum(1, keepdim=True) + left)
        logits.mul_(share * (largest - total).exp() - pull * torch.where(mass > 0, left / mass, 0.0))
        logits.scatter_(1, ids, share * top.exp() - pull * teacher)
        return divergence, total


class PlainObjective(Objective):
    """Any loss that judges each point by itself, its gradient by automatic differentiation of a few rows at a time.

    Args:
        loss: From logits ``(n, K)`` of the points ``rows``, and ``rows``, to losses ``(n,)``.
    """

    def __init__(self, loss: Callable[[torch.Tensor, slice], torch.Tensor]) -> None:
        self._loss = loss

    def values(self, logits: torch.Tensor) -> torch.Tensor:
        """Losses ``(N,)`` of logits ``(N, K)``, differentiable."""
        return self._loss(logits, slice(0, len(logits)))

    def differentiate_(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """See :meth:`Objective.differentiate_`."""
        with torch.enable_grad():
            leaf = logits.detach().clone().requires_grad_()
            value = self._loss(leaf, rows).sum()
            (gradient,) = torch.autograd.grad(value, leaf)
        logits.copy_(gradient)
        return value.detach()


class AskedFor(Objective):
    """An objective to which some outcomes of some points do not exist: no chance, and no gradient.

    Args:
        objective: Judges all others.
        left_out: Rows and outcomes, see :class:`components.tasks.batch.Batch`.
    """

    def __init__(self, objective: Objective, left_out: Pairs) -> None:
        self._objective, self._left_out = objective, left_out

    def values(self, logits: torch.Tensor) -> torch.Tensor:
        """Losses ``(N,)`` of logits ``(N, K)``, differentiable."""
        least = logits.new_tensor(LEAST)
        return self._objective.values(logits.index_put(self._left_out, least))

    def differentiate_(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        """See :meth:`Objective.differentiate_`."""
        places = pairs_of(self._left_out, rows)
        logits[places] = LEAST
        value = self._objective.differentiate_(logits, rows)
        logits[places] = 0.0
        return value


Observed = tuple[torch.Tensor, torch.Tensor]


def _smoothed_logit(logits: torch.Tensor, targets: Observed, smoothing: float) -> torch.Tensor:
    """``sum_j y_j * logit_j``, ``(n, 1)``."""
    ids, shares = targets
    aimed = (logits.gather(1, ids) * shares).sum(1, keepdim=True)
    return aimed if smoothing == 0.0 else (1 - smoothing) * aimed + smoothing * logits.mean(1, keepdim=True)


def _subtract_labels_(gradient: torch.Tensor, targets: Observed, smoothing: float, weight: float) -> None:
    """``gradient -= weight * y``."""
    if smoothing:
        gradient.sub_(weight * smoothing / gradient.shape[1])
    ids, shares = targets
    gradient.scatter_add_(1, ids, shares * (-weight * (1 - smoothing)))
