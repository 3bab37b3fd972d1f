"""Losses against plain references in double precision."""

import math

import pytest
import torch
import torch.nn.functional as F

from components.soft_labels.labels import SoftLabels
from components.training.linear_head import linear_head_loss
from components.training.losses.distributions import PairWeights, cross_entropy, distillation, divergence
from components.training.objectives import HardObjective, Objective, SoftObjective

K, DIM = 37, 6


def teacher_labels(points: int, k: int | None, seed: int = 1, outcomes: int = K) -> SoftLabels:
    log_probs = 3 * torch.randn(points, outcomes, generator=torch.Generator().manual_seed(seed))
    log_probs = log_probs.double().log_softmax(1)
    if k is None:
        return SoftLabels(None, log_probs.float(), None, outcomes)
    values, ids = log_probs.topk(abs(k), dim=1)
    if k < 0:
        # As a sample is read: weights that add up to 1, and nothing beside them.
        ids = torch.rand(points, outcomes, generator=torch.Generator().manual_seed(seed)).argsort(1)[:, :-k]
        return SoftLabels(ids, values.log_softmax(1).float(), None, outcomes)
    tail = torch.logsumexp(log_probs.scatter(1, ids, -torch.inf), dim=1)
    return SoftLabels(ids, values.float(), tail.clamp(min=-65504).float(), outcomes)


def reference_divergence(logits: torch.Tensor, labels: SoftLabels, temperature: float) -> torch.Tensor:
    """Row by row over explicit distributions of K, or of k + 1, outcomes."""
    student = (logits / temperature).softmax(1)
    rows = []
    for row in range(len(logits)):
        if labels.ids is None:
            q, p = labels.log_probs[row].double().exp(), student[row]
        else:
            ids = labels.ids[row]
            others = torch.ones(K, dtype=torch.bool).index_fill(0, ids, False)
            if labels.tail is None:
                labels = labels._replace(tail=torch.full((len(logits),), -torch.inf))
            q = torch.cat([labels.log_probs[row], labels.tail[row : row + 1]]).double().exp()
            p = torch.cat([student[row][ids], student[row][others].sum().view(1)])
        rows.append(sum(a * (a.log() - b.log()) for a, b in zip(q, p, strict=True) if a > 0))
    return torch.stack([torch.as_tensor(row, dtype=torch.float64) for row in rows])


def test_smoothed_cross_entropy_is_the_entropy_with_a_smoothed_label() -> None:
    logits, targets = torch.randn(9, K).double(), torch.randint(0, K, (9,))
    label = 0.9 * F.one_hot(targets, K) + 0.1 / K
    torch.testing.assert_close(cross_entropy(logits, targets, 0.1), -(label * logits.log_softmax(1)).sum(1))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("k", [1, 8, -8, None])
def test_divergence_is_that_of_the_outcomes_which_are_known(k: int | None, temperature: float) -> None:
    logits = 2 * torch.randn(9, K).double()
    labels = teacher_labels(9, k)
    expected = reference_divergence(logits, labels, temperature)
    torch.testing.assert_close(divergence(logits, labels, temperature), expected)
    assert (expected > 0).all()


@pytest.mark.parametrize("k", [8, K, None])
def test_divergence_from_oneself_is_nothing(k: int | None) -> None:
    labels = teacher_labels(9, k)
    logits = teacher_labels(9, None).log_probs.double()
    assert divergence(logits, labels).abs().max() < 1e-6


def test_the_tail_of_a_student_that_is_certain_stays_finite() -> None:
    labels = teacher_labels(1, 2)
    logits = torch.zeros(1, K).index_fill(1, labels.ids[0], 200.0)
    value = divergence(logits, labels)
    # log(1 - mass of the top 2) is log(35 e**-200 / 2), which a difference of probabilities would make -inf.
    tail_log = math.log(35) - 200 - math.log(2)
    q, tail = labels.log_probs[0].double().exp(), labels.tail[0].double().exp()
    expected = float((q * (q.log() - math.log(0.5))).sum() + tail * (tail.log() - tail_log))
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_distillation_weighs_both_terms_and_the_temperature() -> None:
    logits, targets, labels = torch.randn(9, K), torch.randint(0, K, (9,)), teacher_labels(9, 8)
    settings = PairWeights(hard=0.3, soft=0.7, temperature=2.0)
    expected = 0.3 * cross_entropy(logits, targets) + 0.7 * 4 * divergence(logits, labels, 2.0)
    torch.testing.assert_close(distillation(logits, targets, labels, settings), expected)


OBJECTIVES = [
    ("hard", 0, 0.0),
    ("hard smoothed", 0, 0.1),
    ("soft top 1", 1, 0.0),
    ("soft top 8", 8, 0.0),
    ("soft top 8 smoothed", 8, 0.1),
    ("soft top K", K, 0.0),
    ("soft sample of 8", -8, 0.0),
    ("soft sample of 8 smoothed", -8, 0.1),
    ("soft dense", None, 0.0),
    ("soft dense smoothed", None, 0.1),
]


def objective_of(k: int | None, smoothing: float, points: int, settings: PairWeights) -> Objective:
    targets = torch.randint(0, K, (points,), generator=torch.Generator().manual_seed(5))
    if k == 0:
        return HardObjective(targets, smoothing)
    return SoftObjective(targets, teacher_labels(points, k), settings, smoothing)


def gradients(loss: torch.Tensor, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("settings", [(0.3, 0.7, 1.0), (0.3, 0.7, 2.0), (0.0, 1.0, 3.0), (1.0, 0.0, 2.0)])
@pytest.mark.parametrize(("k", "smoothing"), [case[1:] for case in OBJECTIVES], ids=[case[0] for case in OBJECTIVES])
@pytest.mark.parametrize("points", [0, 1, 50])
def test_the_chunked_head_gives_loss_and_gradients_of_the_plain_path(
    points: int,
    k: int | None,
    smoothing: float,
    settings: tuple[float, float, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("components.training.linear_head._MOST_ROWS_ON_CPU", 16)  # several chunks, the last one short
    hard, soft, temperature = settings
    weights = PairWeights(hard, soft, temperature)
    objective = objective_of(k, smoothing, points, weights)
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(points, DIM, generator=generator, requires_grad=True)
    weight = torch.randn(K, DIM, generator=generator, requires_grad=True)
    plain = objective.values(F.linear(hidden, weight)).sum() * 0.5
    chunked = linear_head_loss(hidden, weight, objective) * 0.5
    torch.testing.assert_close(chunked, plain, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(gradients(chunked, hidden, weight), gradients(plain, hidden, weight), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1e3, 1e30])
@pytest.mark.parametrize(("k", "smoothing"), [case[1:] for case in OBJECTIVES], ids=[case[0] for case in OBJECTIVES])
def test_extreme_logits_give_what_double_precision_gives(k: int | None, smoothing: float, scale: float) -> None:
    objective = objective_of(k, smoothing, 20, PairWeights(0.2, 0.8))
    logits = scale * torch.randn(20, K, generator=torch.Generator().manual_seed(3))
    double = logits.double().requires_grad_()
    expected = objective.values(double).sum()
    (gradient,) = gradients(expected, double)
    value = objective.differentiate_(logits, slice(0, 20))
    assert float(value) == pytest.approx(float(expected.detach()), rel=1e-4)
    torch.testing.assert_close(logits.double(), gradient, rtol=1e-4, atol=1e-4)


def test_half_precision_keeps_the_sums_of_the_loss_exact() -> None:
    hidden, weight = torch.randn(40, DIM).bfloat16(), torch.randn(K, DIM).bfloat16().requires_grad_()
    objective = HardObjective(torch.randint(0, K, (40,)))
    value = linear_head_loss(hidden, weight, objective)
    expected = objective.values((hidden @ weight.T).float()).sum()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    (gradient,) = gradients(value, weight)
    assert gradient.dtype == torch.bfloat16 and gradient.abs().sum() > 0
