from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from components.soft_labels.codecs.base import Codec
from components.soft_labels.codecs.sampled import Sampled, TopKSampled
from components.soft_labels.labels import SoftLabels

ROW = st.integers(2, 60).flatmap(
    lambda outcomes: arrays(np.float32, (1, outcomes), elements=st.floats(-9, 9, width=16), unique=True)
)


def codecs(outcomes: int, k: int) -> list[Codec]:
    return [Sampled(outcomes, k), TopKSampled(outcomes, k, head=k // 2)]


def drawn(codec: Codec, logits: np.ndarray, uniforms: np.ndarray) -> SoftLabels:
    return codec.decode(codec.encode(torch.tensor(logits), uniforms=uniforms))


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@given(ROW, st.integers(1, 20), st.floats(0, 1, exclude_max=True))
def test_k_different_outcomes_carry_all_of_the_mass(logits: np.ndarray, k: int, uniform: float) -> None:
    outcomes = logits.shape[1]
    for codec in codecs(outcomes, k):
        labels = drawn(codec, logits, np.array([[uniform]]))
        assert labels.ids is not None and labels.tail is None and labels.log_inclusion is not None
        ids = labels.ids[0].tolist()
        assert len(set(ids)) == len(ids) == min(k, outcomes) and min(ids) >= 0 and max(ids) < outcomes
        np.testing.assert_allclose(labels.log_probs[0].exp().numpy(), softmax(logits)[0, ids], rtol=0.02, atol=1e-6)
        assert bool((labels.log_inclusion <= 0).all())
        raw = (labels.log_probs - labels.log_inclusion).exp().sum().item()
        assert raw == pytest.approx(1.0, abs=0.01)
        assert labels.at_temperature(1.0).log_probs.exp().sum().item() == pytest.approx(1.0, abs=1e-5)


@given(ROW, st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_on_average_over_the_draws_every_outcome_weighs_what_it_should(logits: np.ndarray, k: int) -> None:
    draws = 2000
    # A grid in place of random numbers: the mean over the uniform, but for one part in its size.
    uniforms = ((np.arange(draws) + 0.5) / draws)[:, None]
    for codec in codecs(logits.shape[1], k):
        labels = drawn(codec, np.repeat(logits, draws, axis=0), uniforms).at_temperature(1.0)
        assert labels.ids is not None
        mean = torch.zeros(draws, logits.shape[1]).scatter_add_(1, labels.ids, labels.log_probs.exp()).mean(0)
        # Halves are off by 0.4 % below e ** -8, and a step of the grid moves a weight of 1 / k at most.
        np.testing.assert_allclose(mean.numpy(), softmax(logits)[0], rtol=0.01, atol=2 / draws)


def test_the_k_largest_renormalised_would_fail_that_test() -> None:
    logits = np.log(np.array([[0.4, 0.2, 0.1, 0.1, 0.1, 0.1]], dtype=np.float32))
    kept = softmax(logits)[0, :2] / softmax(logits)[0, :2].sum()
    assert abs(kept[0] - 0.4) > 0.2
    labels = drawn(Sampled(6, 2), np.repeat(logits, 1000, axis=0), (np.arange(1000)[:, None] + 0.5) / 1000)
    assert labels.ids is not None
    weight = labels.at_temperature(1.0).log_probs.exp()
    assert weight[labels.ids == 0].sum().item() / 1000 == pytest.approx(0.4, rel=0.01)


def test_what_is_larger_than_its_share_is_always_there_with_its_own_probability() -> None:
    probabilities = np.array([[0.02, 0.6, 0.02, 0.3, 0.02, 0.02, 0.02]], dtype=np.float32)
    logits = np.repeat(np.log(probabilities), 50, axis=0)
    labels = drawn(Sampled(7, 3), logits, np.random.default_rng(0).random((50, 1)))
    assert labels.ids is not None and labels.log_inclusion is not None
    assert labels.ids[:, :2].tolist() == [[1, 3]] * 50
    assert labels.log_inclusion[:, :2].tolist() == [[0.0, 0.0]] * 50
    np.testing.assert_allclose(labels.at_temperature(1.0).log_probs[:, 2].exp().numpy(), 0.1, rtol=0.01)


def test_the_head_is_the_teachers_list_in_its_order() -> None:
    logits = np.random.default_rng(1).normal(size=(20, 500)).astype(np.float32)
    labels = drawn(TopKSampled(500, 16, head=8), logits, np.random.default_rng(2).random((20, 1)))
    assert labels.ids is not None and labels.log_inclusion is not None
    assert labels.ids[:, :8].tolist() == np.argsort(-logits, axis=1, kind="stable")[:, :8].tolist()
    assert bool((labels.log_inclusion[:, :8] == 0).all()) and bool((labels.log_inclusion[:, 8:] < 0).all())


@pytest.mark.parametrize("codec", [Sampled(40, 40), TopKSampled(40, 50, head=3)])
def test_all_outcomes_as_the_sample_are_the_whole_distribution(codec: Codec) -> None:
    logits = np.random.default_rng(3).normal(size=(5, 40)).astype(np.float32)
    for temperature in (1.0, 0.7, 3.0):
        labels = drawn(codec, logits, np.full((5, 1), 0.3)).at_temperature(temperature)
        assert labels.ids is not None and labels.log_inclusion is None
        whole = torch.zeros(5, 40).scatter(1, labels.ids, labels.log_probs.exp())
        np.testing.assert_allclose(whole.numpy(), softmax(logits / temperature), rtol=0.01)


def test_at_another_temperature_a_large_sample_comes_close_to_the_truth() -> None:
    logits = np.random.default_rng(4).normal(size=(1, 200)).astype(np.float32)
    draws = 500
    labels = drawn(Sampled(200, 60), np.repeat(logits, draws, axis=0), (np.arange(draws)[:, None] + 0.5) / draws)
    hot = labels.at_temperature(2.0)
    assert hot.ids is not None
    mean = torch.zeros(draws, 200).scatter_add_(1, hot.ids, hot.log_probs.exp()).mean(0)
    np.testing.assert_allclose(mean.numpy(), softmax(logits / 2)[0], rtol=0.1, atol=2e-3)


def test_masked_outcomes_are_never_drawn() -> None:
    logits = np.random.default_rng(5).normal(size=(300, 90)).astype(np.float32)
    logits[:, ::2] = -np.inf
    logits[0, 1:] = -np.inf
    logits[0, 0] = 0.0
    for codec in codecs(90, 12):
        labels = drawn(codec, logits, np.random.default_rng(6).random((300, 1))).at_temperature(1.0)
        assert labels.ids is not None and bool(torch.isfinite(labels.log_probs).all())
        weight = labels.log_probs.exp()
        assert bool((weight[1:][labels.ids[1:] % 2 == 0] == 0).all())
        assert weight[0][labels.ids[0] == 0].tolist() == [1.0]


def test_a_row_is_encoded_the_same_in_any_company() -> None:
    logits = torch.randn(64, 333, generator=torch.Generator().manual_seed(0))
    uniforms = np.random.default_rng(7).random((64, 1))
    codec = TopKSampled(333, 16, head=4)
    whole = codec.encode(logits.clone(), uniforms=uniforms)
    for name, column in whole.items():
        pieces = [codec.encode(logits[s : s + 7].clone(), uniforms=uniforms[s : s + 7])[name] for s in range(0, 64, 7)]
        np.testing.assert_array_equal(np.concatenate(pieces), column)


def test_the_mean_gradient_over_draws_is_that_of_the_whole_distribution() -> None:
    random = np.random.default_rng(8)
    logits = random.normal(size=(1, 80)).astype(np.float32) * 2
    student = torch.from_numpy(random.normal(size=(1, 80))).float()
    draws = 1000
    labels = drawn(Sampled(80, 8), np.repeat(logits, draws, axis=0), (np.arange(draws)[:, None] + 0.5) / draws)
    labels = labels.at_temperature(1.0)
    assert labels.ids is not None
    q = torch.zeros(draws, 80).scatter_add_(1, labels.ids, labels.log_probs.exp())
    gradient = (torch.softmax(student, dim=1) - q).mean(0).numpy()
    np.testing.assert_allclose(gradient, softmax(student.numpy())[0] - softmax(logits)[0], atol=2e-3)
