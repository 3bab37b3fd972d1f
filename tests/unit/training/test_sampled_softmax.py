import numpy as np
import torch
import torch.nn.functional as F

from components.training.sampled_softmax import NegativeSampler, sampled_softmax

COUNTS = np.array([0, 1, 3, 10, 100, 50, 7, 7])


def test_items_are_drawn_with_the_chance_that_is_reported() -> None:
    torch.manual_seed(0)
    sampler = NegativeSampler(COUNTS)
    share = torch.bincount(sampler.draw(200_000), minlength=8) / 200_000
    torch.testing.assert_close(share, sampler.log_probability.exp(), rtol=0.05, atol=1e-3)


def test_with_many_negatives_the_loss_tends_to_the_full_cross_entropy() -> None:
    torch.manual_seed(0)
    sampler = NegativeSampler(COUNTS)
    hidden, weight = torch.randn(30, 4), torch.randn(8, 4)
    targets = torch.randint(0, 8, (30,))
    negatives = sampler.draw(100_000)
    value = sampled_softmax(hidden, weight, targets, negatives, sampler.log_probability[negatives])
    torch.testing.assert_close(value, F.cross_entropy(hidden @ weight.T, targets, reduction="none"), rtol=0, atol=0.03)


def test_a_negative_that_is_the_target_does_not_count() -> None:
    hidden, weight, targets = torch.randn(1, 4), torch.randn(8, 4), torch.tensor([2])
    chance = torch.full((3,), 1 / 8).log()
    value = sampled_softmax(hidden, weight, targets, torch.tensor([2, 5, 2]), chance)
    logits = (hidden @ weight.T)[0]
    others = logits[5] - torch.tensor(3 / 8).log()
    torch.testing.assert_close(value[0], torch.logaddexp(logits[2], others) - logits[2])


def test_only_negatives_give_the_smallest_loss_there_is() -> None:
    value = sampled_softmax(
        torch.randn(1, 4), torch.randn(8, 4), torch.tensor([2]), torch.tensor([2, 2]), torch.zeros(2)
    )
    assert float(value) == 0.0


def test_gradients_reach_targets_and_negatives_and_nothing_else() -> None:
    weight = torch.randn(8, 4, requires_grad=True)
    hidden = torch.randn(3, 4, requires_grad=True)
    negatives = torch.tensor([0, 4])
    sampled_softmax(hidden, weight, torch.tensor([1, 1, 6]), negatives, torch.zeros(2)).sum().backward()
    assert weight.grad.abs().sum(1).nonzero().flatten().tolist() == [0, 1, 4, 6]
    assert hidden.grad.abs().sum() > 0
