"""Standardised, decoupled and correlated distributions, and those of clicks, against plain references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from components.soft_labels.labels import SoftLabels
from components.training.losses.clicks import binary_cross_entropy, logit_squared_error, soft_binary_cross_entropy
from components.training.losses.correlation import inter_relation, intra_relation
from components.training.losses.decoupled import decoupled_divergence
from components.training.losses.distributions import divergence
from components.training.losses.standardised import standardised_divergence
from components.training.losses.teacher_list import best_of, is_in, log_probs_at
from tests.unit.training.cached import K, click, completed, dense, listed, log_distribution, student

POINTS = 9
LABELS = {"dense": dense(POINTS), "list": listed(POINTS), "list of one": listed(POINTS, 1), "all": listed(POINTS, K)}
TARGETS = torch.randint(0, K, (POINTS,), generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=LABELS, ids=str)
def labels(request: pytest.FixtureRequest) -> SoftLabels:
    return LABELS[request.param]


def kl(q: torch.Tensor, p: torch.Tensor) -> float:
    return sum(float(a) * math.log(float(a) / float(b)) for a, b in zip(q, p, strict=True) if a > 0)


def test_any_outcome_of_a_list_is_the_one_stored_or_an_even_share_of_the_tail(labels: SoftLabels) -> None:
    ids = torch.arange(K).flip(0).expand(POINTS, -1)
    torch.testing.assert_close(log_probs_at(labels, ids).exp(), completed(labels).flip(1), check_dtype=False)


def test_the_best_of_a_teacher_are_the_same_from_a_list_and_from_everything() -> None:
    for ours, theirs in zip(best_of(listed(POINTS), 5), best_of(dense(POINTS), 5), strict=True):
        assert torch.equal(ours, theirs)


def test_membership_is_told_row_by_row() -> None:
    ids, among = torch.randint(0, 9, (20, 6)), torch.randint(0, 9, (20, 4))
    expected = [[int(one) in row.tolist() for one in some] for some, row in zip(ids, among, strict=True)]
    assert is_in(ids, among).tolist() == expected


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_standardised_divergence_compares_z_scores(temperature: float) -> None:
    logits, teacher = student(POINTS).detach(), log_distribution(POINTS)
    expected = []
    for pair in zip(logits.numpy(), teacher.numpy(), strict=True):
        p, q = (np.exp((z - z.mean()) / z.std(ddof=1) / temperature) for z in pair)
        p, q = p / p.sum(), q / q.sum()
        expected.append(temperature**2 * float((q * np.log(q / p)).sum()))
    found = standardised_divergence(logits, dense(POINTS), temperature)
    torch.testing.assert_close(found, torch.tensor(expected).double(), rtol=1e-5, atol=1e-7)


def test_standardised_divergence_knows_no_scale_and_no_offset() -> None:
    logits = student(POINTS).detach()
    for labels in (dense(POINTS), listed(POINTS)):
        value = standardised_divergence(logits, labels, 2.0)
        torch.testing.assert_close(standardised_divergence(5 * logits - 3, labels, 2.0), value, rtol=1e-5, atol=1e-7)
    same = standardised_divergence(0.2 * log_distribution(POINTS) + 7, dense(POINTS), 2.0)
    assert same.abs().max() < 1e-10


def test_of_a_list_the_standardised_divergence_sees_its_members_alone() -> None:
    logits, labels = student(POINTS).detach(), listed(POINTS)
    only = SoftLabels(None, labels.log_probs, None, 8)
    expected = standardised_divergence(logits.gather(1, labels.ids), only, 2.0)
    torch.testing.assert_close(standardised_divergence(logits, labels, 2.0), expected)
    first = standardised_divergence(logits, labels, 2.0, listed=3)
    shorter = labels._replace(ids=labels.ids[:, :3], log_probs=labels.log_probs[:, :3])
    torch.testing.assert_close(first, standardised_divergence(logits, shorter, 2.0))


def reference_decoupled(logits: torch.Tensor, labels: SoftLabels, alpha: float, beta: float) -> list[float]:
    """Over explicit distributions; outcomes that the cache holds together are one."""
    values = []
    for row, target in enumerate(TARGETS.tolist()):
        q, p = completed(labels)[row], logits[row].softmax(0)
        listed = list(range(K)) if labels.ids is None else labels.ids[row].tolist()
        groups = [[one] for one in listed if one != target]
        groups.append([one for one in range(K) if one != target and one not in listed])
        rest_q = torch.stack([q[group].sum() for group in groups if group]) / (1 - q[target])
        rest_p = torch.stack([p[group].sum() for group in groups if group]) / (1 - p[target])
        binary = kl(torch.stack([q[target], 1 - q[target]]), torch.stack([p[target], 1 - p[target]]))
        values.append(alpha * binary + beta * kl(rest_q, rest_p))
    return values


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_decoupled_divergence_weighs_the_target_and_the_rest(labels: SoftLabels, temperature: float) -> None:
    logits, labels = student(POINTS).detach(), labels.at_temperature(temperature)
    expected = reference_decoupled(logits / temperature, labels, 0.7, 2.5)
    found = decoupled_divergence(logits, TARGETS, labels, alpha=0.7, beta=2.5, temperature=temperature)
    torch.testing.assert_close(found, temperature**2 * torch.tensor(expected).double(), rtol=1e-5, atol=1e-7)


def test_decoupled_divergence_with_the_teachers_own_weight_is_the_divergence() -> None:
    """KL = TCKD + (1 - q_t) * NCKD, equation 6 of the paper."""
    logits, labels = student(POINTS).detach(), dense(POINTS)
    q_target = log_probs_at(labels, TARGETS.unsqueeze(1)).exp().squeeze(1)
    target = decoupled_divergence(logits, TARGETS, labels, alpha=1.0, beta=0.0)
    rest = decoupled_divergence(logits, TARGETS, labels, alpha=0.0, beta=1.0)
    torch.testing.assert_close(target + (1 - q_target) * rest, divergence(logits, labels))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_inter_relation_is_one_less_the_correlation_of_each_point(labels: SoftLabels, temperature: float) -> None:
    logits, labels = student(POINTS).detach(), labels.at_temperature(temperature)
    teacher, ours = completed(labels).numpy(), (logits / temperature).softmax(1).numpy()
    expected = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(teacher, ours, strict=True)]
    found = inter_relation(logits, labels, temperature)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-6)


def test_intra_relation_is_one_less_the_correlation_of_each_outcome_over_the_points(labels: SoftLabels) -> None:
    logits = student(POINTS).detach()
    teacher, ours = completed(labels).numpy(), logits.softmax(1).numpy()
    outcomes = range(K) if labels.ids is None else labels.ids.unique().tolist()
    expected = np.mean([1 - np.corrcoef(teacher[:, one], ours[:, one])[0, 1] for one in outcomes])
    assert float(intra_relation(logits, labels)) == pytest.approx(expected, rel=1e-4)


def test_a_student_that_is_its_teacher_correlates_fully() -> None:
    logits = log_distribution(POINTS)
    assert inter_relation(logits, dense(POINTS)).abs().max() < 1e-9
    assert abs(float(intra_relation(logits, dense(POINTS)))) < 1e-6
    assert float(intra_relation(logits[:1], dense(1))) == 0.0


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, labels: standardised_divergence(logits, labels, 2.0).sum(),
        lambda logits, labels: decoupled_divergence(
            logits, TARGETS, labels, alpha=1.0, beta=2.0, temperature=2.0
        ).sum(),
        lambda logits, labels: inter_relation(logits, labels, 2.0).sum(),
        lambda logits, labels: intra_relation(logits, labels, 2.0),
        lambda logits, labels: divergence(logits, labels, 2.0).sum(),
    ],
    ids=["standardised", "decoupled", "inter", "intra", "divergence"],
)
@pytest.mark.parametrize("name", ["dense", "list", "all"])
def test_gradients_are_those_of_finite_differences(loss, name: str) -> None:
    labels = LABELS[name]
    assert gradcheck(lambda logits: loss(logits, labels), (student(POINTS),), atol=1e-5)


def test_clicks_are_judged_by_what_happened_and_by_what_the_teacher_thinks() -> None:
    teacher, labels = click(POINTS)
    logits, happened = student(POINTS, outcomes=1), torch.tensor([0, 1, 1, 0, 1, 0, 0, 1, 1])
    z, q, p = logits.detach().squeeze(1), (teacher / 3).sigmoid(), (logits.detach().squeeze(1) / 3).sigmoid()
    y = happened.double()
    ours = z.sigmoid()
    torch.testing.assert_close(binary_cross_entropy(logits, happened), -(y * ours.log() + (1 - y) * (1 - ours).log()))
    found = soft_binary_cross_entropy(logits, labels.at_temperature(3.0), 3.0)
    torch.testing.assert_close(found, -(q * p.log() + (1 - q) * (1 - p).log()), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logit_squared_error(logits, labels), (z - teacher).square(), rtol=1e-4, atol=1e-4)
    assert gradcheck(lambda logits: soft_binary_cross_entropy(logits, labels, 2.0), (logits,))


def test_the_soft_click_loss_is_the_divergence_but_for_the_teachers_entropy() -> None:
    _, labels = click(POINTS)
    logits = student(POINTS, outcomes=1)
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    entropy = -(labels.log_probs.exp() * labels.log_probs).sum(1)
    torch.testing.assert_close(
        soft_binary_cross_entropy(logits, labels), divergence(both, labels) + entropy, rtol=1e-5, atol=1e-6
    )
