"""Several outcomes observed at a point, and outcomes that are not asked for, against plain references."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from components.networks.building import new_network
from components.settings.top_n_network import TwoTowerSettings
from components.settings.training import OptimizationSettings
from components.tasks.batch import ITEM_SETS, LEAST, Batch
from components.training.linear_head import linear_head_loss
from components.training.losses.distributions import PairWeights, cross_entropy, distillation
from components.training.module import SupervisedTraining
from components.training.objectives import AskedFor, HardObjective, Objective, SoftObjective
from components.training.sampled_softmax import NegativeSampler, observed_sampled_softmax
from tests.unit.training.test_losses import DIM, K, teacher_labels

POINTS = 40  # Several chunks of 16, the last one short.
TARGETS = torch.tensor([[3, 5, 8], [2, -1, -1], *[[row % K, (row + 9) % K, -1] for row in range(POINTS - 2)]])
LEFT_OUT = torch.tensor([0, 0, 4, 15, 16, 39]), torch.tensor([1, 36, 20, 0, 20, 3])


def reference(logits: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Row by row, the mean over the targets."""
    log_probs = logits.log_softmax(1)
    rows = []
    for row, targets in enumerate(TARGETS):
        observed = torch.stack([log_probs[row, target] for target in targets.tolist() if target >= 0]).mean()
        rows.append(-(1 - smoothing) * observed - smoothing * log_probs[row].mean())
    return torch.stack(rows)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_targets_share_their_point(smoothing: float) -> None:
    logits = torch.randn(POINTS, K).double()
    torch.testing.assert_close(cross_entropy(logits, TARGETS, smoothing), reference(logits, smoothing))
    one = TARGETS[:, :1]
    torch.testing.assert_close(cross_entropy(logits, one), cross_entropy(logits, one[:, 0]))


@pytest.mark.parametrize("left_out", [None, LEFT_OUT])
@pytest.mark.parametrize("soft", [False, True])
def test_the_gradient_in_closed_form_is_that_of_the_plain_loss(
    soft: bool, left_out: tuple[torch.Tensor, torch.Tensor] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.training.linear_head._MOST_ROWS_ON_CPU", 16)
    hidden, weight = torch.randn(POINTS, DIM).double(), torch.randn(K, DIM).double()
    labels, weights = teacher_labels(POINTS, 8), PairWeights(0.3, 0.7, 1.0)
    objective: Objective = SoftObjective(TARGETS, labels, weights) if soft else HardObjective(TARGETS)
    if left_out is not None:
        objective = AskedFor(objective, left_out)

    def gradients(closed: bool) -> tuple[torch.Tensor, ...]:
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        if closed:
            value = linear_head_loss(h, w, objective)
        else:
            logits = h @ w.T
            if left_out is not None:
                logits = logits.index_put(left_out, torch.tensor(LEAST).double())
            plain = distillation(logits, TARGETS, labels, weights) if soft else cross_entropy(logits, TARGETS)
            value = plain.sum()
        return (value.detach(), *torch.autograd.grad(value, (h, w)))

    for found, expected in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        objective.values(hidden @ weight.T).sum(), linear_head_loss(hidden, weight, objective).detach()
    )


def test_the_sampled_loss_of_several_targets_tends_to_the_full_one() -> None:
    torch.manual_seed(0)
    sampler = NegativeSampler(torch.arange(K).numpy())
    hidden, weight = torch.randn(POINTS, DIM), torch.randn(K, DIM)
    negatives = sampler.draw(100_000)
    found = observed_sampled_softmax(hidden, weight, TARGETS, negatives, sampler.log_probability[negatives])
    torch.testing.assert_close(found, cross_entropy(hidden @ weight.T, TARGETS).sum(), rtol=0.01, atol=0)


def test_supervised_training_over_a_sample_leaves_out_what_it_does_over_all() -> None:
    torch.manual_seed(0)
    network = new_network(TwoTowerSettings(kind="two_tower", dim=8, tied=False), K, {ITEM_SETS: True}).eval()
    with torch.no_grad():
        network.head.normal_(std=2.0)
    inputs = torch.randint(K, (POINTS, 4)), torch.full((POINTS,), 4)
    best = network(*inputs).topk(3, dim=1).indices
    left_out = torch.arange(POINTS).repeat_interleave(3), best.flatten()
    batch = Batch(inputs, network(*inputs).topk(5, dim=1).indices[:, 3:], torch.arange(POINTS), POINTS)
    task: Any = SimpleNamespace(
        primary=None, loss="softmax", log_odds_shift=0.0, validation_metric=lambda: None, outcome_counts=np.arange(K)
    )

    def loss_of(full_softmax_up_to: int, batch: Batch) -> torch.Tensor:
        settings = OptimizationSettings(full_softmax_up_to=full_softmax_up_to, negatives=100_000)
        return SupervisedTraining(network, settings, 0, task=task).loss_sum(batch).detach()

    asked = batch._replace(left_out=left_out)
    torch.testing.assert_close(loss_of(1, asked), loss_of(K, asked), rtol=0.02, atol=0.02)
    assert loss_of(K, batch) - loss_of(K, asked) > 1.0
