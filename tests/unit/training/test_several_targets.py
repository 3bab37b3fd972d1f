"""Several outcomes observed at a point, and outcomes that are not asked for, against plain references."""

import pytest
import torch

from components.tasks.batch import LEAST
from components.training.linear_head import linear_head_loss
from components.training.losses.distributions import PairWeights, cross_entropy, distillation
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
