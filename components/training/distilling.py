"""The Lightning module of distillation: the terms of its loss, weighed as the settings say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from components.networks.contract import PredictionNetwork
from components.settings.distillation import DistillationSettings, check_cache, check_head
from components.settings.losses import CrossEntropyLoss, DivergenceLoss, LossSettings, SampledCrossEntropyLoss
from components.settings.training import OptimizationSettings
from components.tasks.batch import Batch
from components.tasks.contract import Task
from components.training.losses.distributions import PairWeights
from components.training.losses.schedules import scheduled_share
from components.training.module import ExtraLoss, NetworkTraining
from components.training.objectives import HardObjective, Objective, SoftObjective
from components.training.sampled_softmax import NegativeSampler
from components.training.terms import Companions, Step, needs_companion, needs_sampler, term_sum

if TYPE_CHECKING:
    from components.soft_labels.labels import SoftLabels
    from components.soft_labels.reader import SoftLabelReader


class DistillationTraining(NetworkTraining):
    """Learns what users did and what the teacher would have expected of them.

    Cross entropy and divergence on the served head go together through one pass over the logits; every further term is
    added to them.

    Args:
        labels: Finds the teacher's cached distribution for a point, for batches that do not carry them.
        distillation: The terms of the loss.
        where: The dotted key of the scenario, named in errors.
        network, optimization, seed, task, extra_loss: See :class:`NetworkTraining`.

    Raises:
        SettingsError: A term needs labels that the cache does not hold, or a network of another kind.
    """

    def __init__(
        self,
        network: PredictionNetwork,
        optimization: OptimizationSettings,
        seed: int,
        *,
        task: Task,
        labels: SoftLabelReader,
        distillation: DistillationSettings,
        extra_loss: ExtraLoss | None = None,
        where: str = "scenarios.*",
    ) -> None:
        super().__init__(network, optimization, seed, task, extra_loss)
        self._labels, self.distillation = labels, distillation
        # Labels that were not read from a cache have no codec, and are what their maker says they are.
        manifest = getattr(labels, "manifest", None)
        self._codec = {} if manifest is None else manifest.codec
        terms: list[LossSettings] = [
            term for term in distillation.terms(self._codec.get("name", "")) if term.weight > 0
        ]
        if self._codec:
            check_cache(distillation, self._codec, where, network.outcomes)
        if network.head is None:
            check_head(distillation, where)
        self._hard = next((term for term in terms if isinstance(term, CrossEntropyLoss)), None)
        self._soft = next((term for term in terms if isinstance(term, DivergenceLoss) and term.head == "served"), None)
        self._further = [term for term in terms if term is not self._hard and term is not self._soft]
        self._sampler = None
        if any(needs_sampler(term) for term in terms):
            self._sampler = NegativeSampler(task.outcome_counts)
        self.companions = Companions(terms, network, int(self._codec.get("hidden_dim", 0)), seed)

    def trained_parameters(self) -> list[torch.nn.Parameter]:
        """What the optimizer changes: the network, and what is trained beside it and left behind."""
        return [*super().trained_parameters(), *self.companions.parameters()]

    def loss_sum(self, batch: Batch) -> torch.Tensor:
        """The summed loss of a batch's points, a scalar."""
        return self._sum(batch, self._further)

    def served_loss_sum(self, batch: Batch) -> torch.Tensor:
        """The same without the terms that judge through something that is left behind."""
        return self._sum(batch, [term for term in self._further if not needs_companion(term)])

    def _sum(self, batch: Batch, further: Sequence[LossSettings]) -> torch.Tensor:
        labels, steps = self._labels_of(batch), {}

        def step(observed: bool) -> Step:
            """What terms of what was observed look at, or those of the teacher's labels."""
            inputs = batch.inputs if observed or batch.whole is None else batch.whole
            if id(inputs) not in steps:
                steps[id(inputs)] = self._step(batch, labels, inputs)
            return steps[id(inputs)]

        total = None
        if self._hard is not None or self._soft is not None:
            for objective in self._pair(batch, labels):
                value = step(isinstance(objective, HardObjective)).judged(objective, self.network.head)
                total = value if total is None else total + value
        for term in further:
            weight = self._weight(term)
            # What is trained beside the network stays part of every step: devices wait for one another's gradients.
            if weight or needs_companion(term):
                observed = isinstance(term, CrossEntropyLoss | SampledCrossEntropyLoss)
                value = weight * term_sum(term, step(observed), self.companions)
                total = value if total is None else total + value
        return step(True).hidden.sum() * 0.0 if total is None else total

    def _step(self, batch: Batch, labels: SoftLabels, inputs: tuple[torch.Tensor, ...]) -> Step:
        return Step(
            network=self.network,
            hidden=self.network.encode(*inputs),
            targets=batch.targets,
            labels=labels,
            smoothing=self.optimization.label_smoothing,
            codec=self._codec,
            sampler=self._sampler,
            log_odds_shift=self.log_odds_shift,
            left_out=batch.left_out,
            known=batch.known,
        )

    def _pair(self, batch: Batch, labels: SoftLabels) -> list[Objective]:
        """Both in one pass, unless they do not ask for the same outcomes."""
        temperature = 1.0 if self._soft is None else self._soft.temperature
        weights = PairWeights(self._weight(self._hard), self._weight(self._soft), temperature)
        smoothing, scaled = self.optimization.label_smoothing, labels.at_temperature(temperature)
        if batch.known is None:
            return [SoftObjective(batch.targets, scaled, weights, smoothing)]
        found: list[Objective] = []
        if weights.soft:
            found.append(SoftObjective(batch.targets, scaled, weights._replace(hard=0.0), smoothing))
        if weights.hard:
            found.append(HardObjective(batch.targets, smoothing, weights.hard))
        return found

    def _weight(self, term: LossSettings | None) -> float:
        return 0.0 if term is None else term.weight * scheduled_share(term.schedule, self.done)

    def _labels_of(self, batch: Batch) -> SoftLabels:
        labels = self._labels.labels(batch.points) if batch.labels is None else batch.labels
        return labels.to(self.device)
