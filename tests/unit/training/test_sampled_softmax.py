import numpy as np
import pytest
import torch
import torch.nn.functional as F

from components.training.losses.distributions import divergence
from components.training.sampled_softmax import NegativeSampler, sampled_divergence, sampled_softmax
from tests.unit.training.cached import K, listed

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


LISTS = {"list": listed(30, 8), "list of one": listed(30, 1), "everything": listed(30, K)}


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("name", LISTS)
def test_with_many_negatives_the_sampled_divergence_tends_to_the_divergence(name: str, temperature: float) -> None:
    torch.manual_seed(0)
    labels = LISTS[name].at_temperature(temperature)
    sampler = NegativeSampler(np.arange(K))
    hidden, weight = torch.randn(30, 4).double(), torch.randn(K, 4).double()
    negatives = sampler.draw(50_000)
    chance = sampler.log_probability[negatives].double()
    value = sampled_divergence(hidden, weight, labels, negatives, chance, temperature=temperature)
    expected = divergence(hidden @ weight.T, labels, temperature)
    torch.testing.assert_close(value, expected, rtol=0.03, atol=0.03)


def test_the_sampled_divergence_counts_each_negative_as_often_as_it_stands_for() -> None:
    labels, negatives = listed(1, 2), torch.tensor([3, 11, 3, 20])
    labels = labels._replace(ids=torch.tensor([[5, 11]]))
    hidden, weight = torch.randn(1, 4).double(), torch.randn(K, 4).double()
    chance = torch.tensor([0.1, 0.2, 0.1, 0.4]).double()
    score = (hidden @ weight.T)[0].exp()
    # 11 is stored, and 3 was drawn twice.
    outside = 2 * score[3] / (4 * 0.1) + score[20] / (4 * 0.4)
    total = score[5] + score[11] + outside
    p = torch.stack([score[5], score[11], outside]) / total
    q = torch.cat([labels.log_probs[0], labels.tail]).exp()
    value = sampled_divergence(hidden, weight, labels, negatives, chance.log())
    torch.testing.assert_close(value[0], (q * (q / p).log()).sum())


def test_the_sampled_divergence_is_differentiable_when_no_negative_is_outside_the_list() -> None:
    labels = listed(3, 8)
    hidden = torch.randn(3, 4).double().requires_grad_()
    weight = torch.randn(K, 4).double().requires_grad_()
    inside = labels.ids[0, :1].repeat(5)
    labels = labels._replace(ids=labels.ids[:1].expand(3, -1))
    value = sampled_divergence(hidden, weight, labels, inside, torch.zeros(5).double())
    gradients = torch.autograd.grad(value.sum(), (hidden, weight))
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_sampled_divergence_of_no_points_is_nothing() -> None:
    labels = listed(3, 8).rows(slice(0, 0))
    value = sampled_divergence(torch.zeros(0, 4), torch.randn(K, 4), labels, torch.tensor([1]), torch.zeros(1))
    assert value.shape == (0,)
