"""From a term of ``distillation.losses`` to what it adds in a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from components.errors import SettingsError
from components.networks.contract import PredictionNetwork
from components.settings import losses as kinds
from components.tasks.batch import Pairs
from components.training.linear_head import linear_head_loss
from components.training.losses import clicks, ranking
from components.training.losses.correlation import inter_relation, intra_relation
from components.training.losses.decoupled import decoupled_divergence
from components.training.losses.distributions import PairWeights
from components.training.losses.hidden import hint, topology
from components.training.losses.standardised import standardised_divergence
from components.training.losses.teacher_list import best_of, is_in
from components.training.objectives import AskedFor, HardObjective, Objective, PlainObjective, SoftObjective
from components.training.sampled_softmax import NegativeSampler, observed_sampled_softmax, sampled_divergence

if TYPE_CHECKING:
    from components.soft_labels.labels import SoftLabels

RowLoss = Callable[[torch.Tensor, slice], torch.Tensor]
Score = Callable[[torch.Tensor], torch.Tensor]


class Step(NamedTuple):
    """What a term may look at.

    Attributes:
        network: The student.
        hidden: ``(N, dim)``, its hidden states.
        targets: ``(N,)`` or ``(N, M)`` int64, see :class:`components.tasks.batch.Batch`.
        labels: The teacher's, at temperature 1, on the device of the hidden states.
        smoothing: Label smoothing of what was observed.
        codec: Name and settings of the cache's codec; empty when it is not known.
        sampler: Draws outcomes by popularity.
        log_odds_shift: See :attr:`components.tasks.contract.Task.log_odds_shift`.
        left_out, known: See :class:`components.tasks.batch.Batch`.
    """

    network: PredictionNetwork
    hidden: torch.Tensor
    targets: torch.Tensor
    labels: SoftLabels
    smoothing: float
    codec: Mapping[str, Any]
    sampler: NegativeSampler | None
    log_odds_shift: float = 0.0
    left_out: Pairs | None = None
    known: Pairs | None = None

    def judged(self, objective: Objective, table: torch.Tensor | None, score: Score | None = None) -> torch.Tensor:
        """The summed losses of the logits that a head gives.

        Args:
            objective: Judges them.
            table: ``(K, dim)``, a linear head; None for any other.
            score: That other, from hidden states to logits. None: the network's own.
        """
        missing = self.left_out if isinstance(objective, HardObjective) else self.known
        if missing is not None:
            objective = AskedFor(objective, missing)
        if table is not None:
            return linear_head_loss(self.hidden, table, objective)
        return objective.values((score or self.network.score)(self.hidden)).sum()


class Companions(nn.Module):
    """What is trained beside the network for some terms, and left behind.

    Args:
        losses: The terms.
        network: The student. The auxiliary head begins as a copy of its own.
        hidden_dim: Width of the teacher's hidden states.
        seed: Of first weights.
    """

    def __init__(
        self, losses: Sequence[kinds.LossSettings], network: PredictionNetwork, hidden_dim: int, seed: int
    ) -> None:
        super().__init__()
        self.head: nn.Parameter | None = None
        self.scorer: nn.Module | None = None
        if any(kinds.learns_from_auxiliary(loss) for loss in losses):
            if network.head is not None:
                self.head = nn.Parameter(network.head.detach().clone())
            else:
                self.scorer = network.copied_scorer()
        self.regressor: nn.Linear | None = None
        if any(isinstance(loss, kinds.HintLoss) for loss in losses):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.regressor = nn.Linear(network.hidden_dim, hidden_dim)


def needs_companion(loss: kinds.LossSettings) -> bool:
    """Whether something is trained beside the network for a term."""
    return kinds.learns_from_auxiliary(loss) or isinstance(loss, kinds.HintLoss)


def needs_sampler(loss: kinds.LossSettings) -> bool:
    """Whether a term draws outcomes by popularity."""
    return isinstance(loss, kinds.OVER_A_SAMPLE)


def term_sum(loss: kinds.LossSettings, step: Step, companions: Companions) -> torch.Tensor:
    """What a term adds up to over the points of a step, without its weight; a scalar.

    Raises:
        SettingsError: The term weighs all outcomes against each other or one observed against all others, and the task
            leaves some out or observes several.
    """
    if step.known is not None and isinstance(loss, kinds.OVER_ALL_OUTCOMES):
        raise SettingsError(
            f"params.yaml: the loss {loss.kind!r} is not for a task that leaves known outcomes out",
            "Take it out of `distillation.losses`; `divergence` is for every task.",
        )
    match loss:
        case kinds.HintLoss():
            assert companions.regressor is not None and step.labels.hidden is not None
            return hint(companions.regressor(step.hidden).float(), step.labels.hidden).sum()
        case kinds.TopologyLoss():
            return _topology_sum(loss, step)
        case kinds.SampledCrossEntropyLoss() | kinds.SampledDivergenceLoss():
            return _sampled_sum(loss, step)
    auxiliary = kinds.learns_from_auxiliary(loss)
    table = companions.head if auxiliary else step.network.head
    score = companions.scorer if auxiliary else None
    if isinstance(loss, kinds.CorrelationLoss):
        return _correlation_sum(loss, step, table, score or step.network.score)
    return step.judged(_objective(loss, step), table, score)


def _objective(loss: kinds.LossSettings, step: Step) -> Objective:
    match loss:
        case kinds.CrossEntropyLoss():
            return HardObjective(step.targets, step.smoothing)
        case kinds.DivergenceLoss(temperature=temperature):
            labels = step.labels.at_temperature(temperature)
            return SoftObjective(step.targets, labels, PairWeights(0.0, 1.0, temperature))
    return PlainObjective(_row_loss(loss, step))


def _row_loss(loss: kinds.LossSettings, step: Step) -> RowLoss:
    targets = step.targets
    labels = step.labels.at_temperature(getattr(loss, "temperature", 1.0))
    match loss:
        case kinds.StandardisedDivergenceLoss():
            whole, listed = step.labels, _listed(step)
            return lambda logits, rows: standardised_divergence(logits, whole.rows(rows), loss.temperature, listed)
        case kinds.DecoupledDivergenceLoss():
            weights = {"alpha": loss.alpha, "beta": loss.beta, "temperature": loss.temperature}
            return lambda logits, rows: decoupled_divergence(logits, targets[rows], labels.rows(rows), **weights)
        case kinds.RelaxedRankingLoss():
            return _relaxed_ranking(loss, step)
        case kinds.RejuvenatedCrossEntropyLoss():
            return _rejuvenated(loss, labels)
    return _click_loss(loss, step, labels)


def _click_loss(loss: kinds.LossSettings, step: Step, labels: SoftLabels) -> RowLoss:
    targets, shift = step.targets, step.log_odds_shift
    match loss:
        case kinds.BinaryCrossEntropyLoss():
            return lambda logits, rows: clicks.binary_cross_entropy(logits, targets[rows], shift)
        case kinds.SoftBinaryCrossEntropyLoss(temperature=temperature):
            return lambda logits, rows: (
                temperature**2 * clicks.soft_binary_cross_entropy(logits, labels.rows(rows), temperature)
            )
        case kinds.LogitSquaredErrorLoss():
            return lambda logits, rows: clicks.logit_squared_error(logits, labels.rows(rows))
    raise ValueError(f"a {type(loss).__name__} does not judge each point by itself")


def _relaxed_ranking(loss: kinds.RelaxedRankingLoss, step: Step) -> RowLoss:
    points, device = len(step.targets), step.hidden.device
    listed, _ = best_of(step.labels, loss.among)
    places = ranking.places_by_importance(points, loss.among, loss.interesting, loss.sharpness, device)
    interesting = listed.gather(1, places)
    uninteresting = torch.randint(step.labels.outcomes, (loss.uninteresting,), device=device)
    drawn = uninteresting.expand(points, -1)
    left_out = is_in(drawn, listed) | is_in(drawn, step.targets.reshape(points, -1))
    return lambda logits, rows: ranking.relaxed_ranking(logits, interesting[rows], uninteresting, left_out[rows])


def _rejuvenated(loss: kinds.RejuvenatedCrossEntropyLoss, labels: SoftLabels) -> RowLoss:
    def values(logits: torch.Tensor, rows: slice) -> torch.Tensor:
        teacher, among = labels.rows(rows), min(loss.among, logits.shape[1])
        student = logits.detach().topk(among, dim=1).indices
        teacher_best, _ = best_of(teacher, loss.k)
        drawn = ranking.collaborative_sample(teacher_best, student, min(loss.sampled, among), loss.sharpness)
        return ranking.rejuvenated_cross_entropy(
            logits, teacher, student[:, : loss.k], drawn, beta=loss.beta, temperature=loss.temperature
        )

    return values


def _correlation_sum(loss: kinds.CorrelationLoss, step: Step, table: torch.Tensor | None, score: Score) -> torch.Tensor:
    labels = step.labels.at_temperature(loss.temperature)

    def inter(logits: torch.Tensor, rows: slice) -> torch.Tensor:
        return loss.inter * inter_relation(logits, labels.rows(rows), loss.temperature)

    value = step.hidden.sum() * 0.0
    if loss.inter:
        value = value + step.judged(PlainObjective(inter), table, score)
    if loss.intra:
        logits = score(step.hidden) if table is None else step.hidden.to(table.dtype) @ table.t()
        value = value + loss.intra * len(logits) * intra_relation(logits.float(), labels, loss.temperature)
    return value


def _topology_sum(loss: kinds.TopologyLoss, step: Step) -> torch.Tensor:
    assert step.labels.hidden is not None
    student, teacher = step.hidden, step.labels.hidden
    points = len(student)
    if points > loss.points:
        chosen = torch.randperm(points)[: loss.points].to(student.device)
        student, teacher = student[chosen], teacher[chosen]
    return points * topology(student.float(), teacher)


def _sampled_sum(loss: kinds.SampledCrossEntropyLoss | kinds.SampledDivergenceLoss, step: Step) -> torch.Tensor:
    head = step.network.head
    assert step.sampler is not None and head is not None
    negatives = step.sampler.draw(loss.negatives)
    chance = step.sampler.log_probability[negatives].to(step.hidden.device)
    negatives = negatives.to(step.hidden.device)
    if isinstance(loss, kinds.SampledCrossEntropyLoss):
        return observed_sampled_softmax(step.hidden, head, step.targets, negatives, chance, left_out=step.left_out)
    labels = step.labels.at_temperature(loss.temperature)
    values = sampled_divergence(
        step.hidden, head, labels, negatives, chance, temperature=loss.temperature, left_out=step.known
    )
    return loss.temperature**2 * values.sum()


def _listed(step: Step) -> int | None:
    """Outcomes of the list that are in order, where not all that are stored are."""
    return int(step.codec["head"]) if step.codec.get("name") == "top_k_sampled" else None
