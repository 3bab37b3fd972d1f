from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from components.errors import SettingsError, TrainingError
from components.settings.soft_labels import SoftLabelSettings
from components.soft_labels.codec import Codec, Dense, SoftLabels, TopKTail, codec_for, codec_of

# A probability in half precision: the log is off by half a unit in the last place, 2 ** -8 below e ** -8.
HALF = 2.0**-8 + 1e-3


def logits_arrays(largest: float = 60.0, unique: bool = False) -> st.SearchStrategy[np.ndarray]:
    shapes = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
    return arrays(np.float32, shapes, elements=st.floats(-largest, largest, width=32), unique=unique)


def stored(codec: Codec, logits: np.ndarray) -> SoftLabels:
    return codec.decode(codec.encode(torch.from_numpy(logits)))


def mass(labels: SoftLabels) -> torch.Tensor:
    kept = labels.log_probs.exp().sum(1)
    return kept if labels.tail is None else kept + labels.tail.exp()


@given(logits_arrays(), st.integers(1, 12), st.sampled_from([0.25, 1.0, 1.7, 8.0]))
def test_masses_sum_to_one_within_half_precision_at_every_temperature(
    logits: np.ndarray, k: int, temperature: float
) -> None:
    for codec in (Dense(logits.shape[1]), TopKTail(logits.shape[1], k)):
        labels = stored(codec, logits).at_temperature(temperature)
        assert torch.isfinite(labels.log_probs).all()
        assert labels.tail is None or torch.isfinite(labels.tail).all()
        tolerance = HALF if temperature == 1.0 else 1e-5
        np.testing.assert_allclose(mass(labels).numpy(), 1.0, atol=tolerance)


@given(logits_arrays(largest=12.0), st.integers(1, 12))
def test_what_is_kept_and_what_is_left_are_the_true_masses(logits: np.ndarray, k: int) -> None:
    true = torch.softmax(torch.from_numpy(logits).double(), dim=1).numpy()
    labels = stored(TopKTail(logits.shape[1], k), logits)
    assert labels.ids is not None and labels.tail is not None
    np.testing.assert_allclose(
        labels.log_probs.exp().numpy(), np.take_along_axis(true, labels.ids.numpy(), 1), rtol=0.02, atol=1e-6
    )
    rest = true.copy()
    np.put_along_axis(rest, labels.ids.numpy(), 0.0, axis=1)
    np.testing.assert_allclose(labels.tail.exp().numpy(), rest.sum(1), rtol=0.02, atol=1e-6)


@given(logits_arrays(unique=True))
def test_all_outcomes_as_the_top_k_are_the_dense_labels(logits: np.ndarray) -> None:
    dense = stored(Dense(logits.shape[1]), logits)
    labels = stored(TopKTail(logits.shape[1], logits.shape[1] + 5), logits)
    assert labels.ids is not None and labels.tail is not None
    spread = torch.empty_like(dense.log_probs).scatter(1, labels.ids, labels.log_probs)
    assert torch.equal(spread, dense.log_probs)
    assert bool((labels.tail.exp() == 0).all())
    hot, cold = labels.at_temperature(2.0), dense.at_temperature(2.0)
    np.testing.assert_allclose(hot.log_probs.numpy(), cold.log_probs.gather(1, labels.ids).numpy(), atol=1e-5)


@given(logits_arrays(unique=True), st.randoms(use_true_random=False), st.integers(1, 12))
def test_another_order_of_the_outcomes_gives_the_same_labels(logits: np.ndarray, random, k: int) -> None:
    places = list(range(logits.shape[1]))
    random.shuffle(places)
    codec = TopKTail(logits.shape[1], k)
    one, other = stored(codec, logits), stored(codec, np.ascontiguousarray(logits[:, places]))
    assert one.ids is not None and other.ids is not None and one.tail is not None and other.tail is not None
    assert torch.equal(one.ids, torch.tensor(places)[other.ids])
    # A sum in another order may round the log-probabilities to the neighbouring half.
    np.testing.assert_allclose(one.log_probs.numpy(), other.log_probs.numpy(), rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(one.tail.exp().numpy(), other.tail.exp().numpy(), rtol=0.1, atol=1e-6)


@given(st.integers(1, 6), st.integers(2, 40))
@settings(max_examples=30)
def test_of_equal_logits_the_lower_ids_are_kept(k: int, outcomes: int) -> None:
    logits = np.zeros((3, outcomes), dtype=np.float32)
    logits[1, -1] = 1.0
    labels = stored(TopKTail(outcomes, k), logits)
    assert labels.ids is not None
    kept = min(k, outcomes)
    assert labels.ids[0].tolist() == list(range(kept))
    assert labels.ids[1].tolist() == [outcomes - 1, *range(kept - 1)]


@pytest.mark.parametrize("gap", [50.0, 1e4, 1e30])
def test_a_one_hot_teacher_has_a_finite_tail_without_mass(gap: float) -> None:
    logits = np.zeros((1, 9), dtype=np.float32)
    logits[0, 4] = gap
    labels = stored(TopKTail(9, 1), logits)
    assert labels.ids is not None and labels.tail is not None
    assert labels.ids.item() == 4
    assert math.isfinite(labels.tail.item())
    assert labels.tail.exp().item() < 1e-10
    assert labels.log_probs.item() == 0.0


def test_a_small_tail_is_not_lost_to_rounding() -> None:
    logits = np.zeros((1, 3), dtype=np.float32)
    logits[0, 0] = 30.0
    labels = stored(TopKTail(3, 1), logits)
    assert labels.tail is not None
    assert labels.tail.item() == pytest.approx(math.log(2) - 30, abs=0.01)


def test_masked_outcomes_have_no_mass() -> None:
    logits = np.array([[0.0, -np.inf, 0.0, -np.inf]], dtype=np.float32)
    for codec in (Dense(4), TopKTail(4, 3)):
        labels = stored(codec, logits).at_temperature(2.0)
        assert torch.isfinite(labels.log_probs).all()
        np.testing.assert_allclose(mass(labels).numpy(), 1.0, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("codec", [Dense(5), TopKTail(5, 2)], ids=["dense", "top_k_tail"])
def test_logits_that_are_not_finite_are_refused(codec: Codec, bad: float) -> None:
    logits = np.zeros((4, 5), dtype=np.float32)
    logits[2, 3] = bad
    with pytest.raises(TrainingError, match="not finite"):
        codec.encode(torch.from_numpy(logits))


def test_the_tail_at_a_temperature_is_that_of_an_even_spread() -> None:
    probabilities = np.array([[0.5, 0.26, 0.06, 0.06, 0.06, 0.06]])
    logits = torch.from_numpy(np.log(probabilities)).float()
    labels = TopKTail(6, 2).decode(TopKTail(6, 2).encode(logits))
    for temperature in (0.5, 1.0, 3.0):
        true = torch.softmax(logits / temperature, dim=1)
        found = labels.at_temperature(temperature)
        assert found.tail is not None
        np.testing.assert_allclose(found.log_probs.exp().numpy(), true[:, :2].numpy(), rtol=5e-3)
        assert found.tail.exp().item() == pytest.approx(true[:, 2:].sum().item(), rel=5e-3)


def test_at_temperature_one_nothing_changes_and_none_below_zero_is_taken() -> None:
    labels = stored(TopKTail(6, 2), np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32))
    assert labels.at_temperature(1.0) is labels
    with pytest.raises(ValueError, match="above 0"):
        labels.at_temperature(0.0)


@pytest.mark.parametrize(("outcomes", "kind", "size"), [(65_536, np.uint16, 34), (65_537, np.int32, 50)])
def test_ids_take_the_smallest_type_that_holds_them(outcomes: int, kind: type, size: int) -> None:
    codec = TopKTail(outcomes, 8)
    logits = torch.zeros(2, outcomes)
    logits[:, -1] = 5.0
    encoded = codec.encode(logits)
    assert encoded["ids"].dtype == kind
    assert codec.bytes_per_row == size == sum(column.nbytes for column in encoded.values()) / 2
    ids = codec.decode(encoded).ids
    assert ids is not None and ids[:, 0].tolist() == [outcomes - 1] * 2


def test_the_settings_and_the_record_lead_to_the_same_codec() -> None:
    codec = codec_for(SoftLabelSettings(codec="top_k_tail", k=64), 20)
    assert codec.record() == {"name": "top_k_tail", "k": 20} == codec_of(codec.record(), 20).record()
    assert codec_for(SoftLabelSettings(codec="dense"), 20).record() == {"name": "dense"}
    with pytest.raises(SettingsError, match="sparkling"):
        codec_of({"name": "sparkling"}, 20)
