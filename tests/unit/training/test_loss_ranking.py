"""Losses of order against plain references, and their draws against what they promise."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from components.training.losses.ranking import (
    collaborative_sample,
    places_by_importance,
    rejuvenated_cross_entropy,
    relaxed_ranking,
)
from components.training.losses.teacher_list import best_of
from tests.unit.training.cached import K, completed, dense, listed, student

POINTS = 6


def interesting_and_others() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    interesting, _ = best_of(listed(POINTS), 5)
    others = torch.arange(20, 32)
    return interesting, others, (others.unsqueeze(0).unsqueeze(2) == interesting.unsqueeze(1)).any(2)


def test_relaxed_ranking_is_the_likelihood_of_the_teachers_order_before_all_others() -> None:
    logits = student(POINTS).detach()
    interesting, others, left_out = interesting_and_others()
    expected = []
    for row in range(POINTS):
        s = logits[row]
        rest = sum(
            math.exp(s[one]) for one, out in zip(others.tolist(), left_out[row].tolist(), strict=True) if not out
        )
        ids = interesting[row].tolist()
        places = [math.exp(s[one]) / (sum(math.exp(s[two]) for two in ids[n:]) + rest) for n, one in enumerate(ids)]
        expected.append(-sum(math.log(place) for place in places) / len(ids))
    found = relaxed_ranking(logits, interesting, others, left_out)
    torch.testing.assert_close(found, torch.tensor(expected).double())


def test_relaxed_ranking_wants_the_order_of_the_interesting_and_none_of_the_others() -> None:
    interesting, others, left_out = interesting_and_others()
    in_order = torch.zeros(POINTS, K).scatter(1, interesting, torch.arange(25.0, 0, -5).expand(POINTS, -1))
    backwards = torch.zeros(POINTS, K).scatter(1, interesting, torch.arange(5.0, 30, 5).expand(POINTS, -1))
    assert (relaxed_ranking(in_order, interesting, others, left_out) < 0.1).all()
    assert (relaxed_ranking(backwards, interesting, others, left_out) > 1.0).all()
    logits = student(POINTS)
    (gradient,) = torch.autograd.grad(relaxed_ranking(logits, interesting, others, left_out).sum(), logits)
    assert (gradient.gather(1, others.expand(POINTS, -1))[~left_out] > 0).all()


def test_relaxed_ranking_has_the_gradient_of_finite_differences_and_survives_having_no_others() -> None:
    interesting, others, left_out = interesting_and_others()
    assert gradcheck(lambda logits: relaxed_ranking(logits, interesting, others, left_out), (student(POINTS),))
    none = torch.ones_like(left_out)
    assert gradcheck(lambda logits: relaxed_ranking(logits, interesting, others, none), (student(POINTS),))


def test_places_are_drawn_sooner_from_the_head_once_each_and_in_order() -> None:
    torch.manual_seed(0)
    places = places_by_importance(4000, 20, 5, 4.0, torch.device("cpu"))
    assert ((places[:, 1:] - places[:, :-1]) > 0).all() and int(places.max()) < 20
    times = torch.bincount(places.flatten(), minlength=20) / 4000
    assert times[0] > 0.6 > times[5] > times[15]
    one = places_by_importance(100_000, 20, 1, 4.0, torch.device("cpu"))
    share = torch.bincount(one.flatten(), minlength=20) / 100_000
    expected = torch.exp(-torch.arange(1, 21) / 4.0)
    torch.testing.assert_close(share, expected / expected.sum(), rtol=0.1, atol=2e-3)


def test_the_sample_is_drawn_where_the_teachers_best_lie_at_or_below() -> None:
    torch.manual_seed(0)
    student_best = torch.tensor([[4, 9, 2, 7, 1, 8]]).expand(50_000, -1)
    teacher_best = torch.tensor([[7, 9, 30]]).expand(50_000, -1)
    drawn = collaborative_sample(teacher_best, student_best, 1, 2.0)
    # At or below each place lie 2, 2, 1, 1, 0 and 0 of the teacher's best.
    weight = torch.tensor([2.0, 2.0, 1.0, 1.0, 0.0, 0.0]).div(2.0).exp()
    share = torch.stack([(drawn == one).float().mean() for one in student_best[0]])
    torch.testing.assert_close(share, weight / weight.sum(), rtol=0.05, atol=2e-3)
    several = collaborative_sample(teacher_best[:100], student_best[:100], 6, 1e-3)
    assert all(sorted(row) == [1, 2, 4, 7, 8, 9] for row in several.tolist())


@pytest.mark.parametrize("labels", [dense(POINTS), listed(POINTS, 6)], ids=["dense", "list"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_rejuvenated_cross_entropy_splits_the_teachers_list(labels, temperature: float) -> None:
    k, beta = 6, 1.5
    logits = student(POINTS).detach()
    student_best = logits.topk(k, dim=1).indices
    sampled = torch.stack(
        [torch.randperm(K, generator=torch.Generator().manual_seed(row))[:9] for row in range(POINTS)]
    )
    teacher_best, _ = best_of(labels, k)
    at = labels.at_temperature(temperature)
    q, z = completed(at), logits / temperature

    def over(row: int, ids: list[int]) -> float:
        p = z[row][ids].softmax(0)
        weight = q[row][ids] / q[row][ids].sum()
        return -float((weight * p.log()).sum())

    expected = []
    for row in range(POINTS):
        best, ours, sample = (set(ids[row].tolist()) for ids in (teacher_best, student_best, sampled))
        share = math.exp(-beta * len(best & sample) / k)
        far = sorted(sample | (best - ours))
        expected.append((1 - share) * over(row, sorted(ours)) + share * over(row, far))
    found = rejuvenated_cross_entropy(logits, at, student_best, sampled, beta=beta, temperature=temperature)
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-5, atol=1e-7)
    assert gradcheck(
        lambda logits: rejuvenated_cross_entropy(logits, at, student_best, sampled, beta=beta), (student(POINTS),)
    )


def test_a_list_without_a_tail_teaches_nothing_about_a_set_it_does_not_touch() -> None:
    labels = listed(POINTS, 6)
    labels = labels._replace(tail=torch.full((POINTS,), -torch.inf))
    outside = torch.stack(
        [torch.tensor([one for one in range(K) if one not in row][:6]) for row in labels.ids.tolist()]
    )
    logits = student(POINTS)
    value = rejuvenated_cross_entropy(logits, labels, outside, outside, beta=0.0)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all() and gradient.isfinite().all()
