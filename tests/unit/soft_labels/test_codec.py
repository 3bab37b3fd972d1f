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
from components.soft_labels.codecs.base import Codec
from components.soft_labels.codecs.building import codec_for, codec_of
from components.soft_labels.codecs.dense import Dense
from components.soft_labels.codecs.ids import packed_ids, unpacked_ids
from components.soft_labels.codecs.largest import largest
from components.soft_labels.codecs.logit import Logit
from components.soft_labels.codecs.top_k_tail import TopKTail
from components.soft_labels.labels import SoftLabels

# A probability in half precision: the log is off by half a unit in the last place, 2 ** -8 below e ** -8.
HALF = 2.0**-8 + 1e-3


def logits_arrays(largest: float = 60.0, unique: bool = False) -> st.SearchStrategy[np.ndarray]:
    shapes = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
    return arrays(np.float32, shapes, elements=st.floats(-largest, largest, width=32), unique=unique)


def stored(codec: Codec, logits: np.ndarray) -> SoftLabels:
    return codec.decode(codec.encode(torch.tensor(logits)))


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
    # Two ways to the same number may round to neighbouring halves.
    np.testing.assert_allclose(spread.numpy(), dense.log_probs.numpy(), rtol=2e-3, atol=1e-6)
    assert bool((labels.tail.exp() == 0).all())
    hot, cold = labels.at_temperature(2.0), dense.at_temperature(2.0)
    np.testing.assert_allclose(
        hot.log_probs.numpy(), cold.log_probs.gather(1, labels.ids).numpy(), rtol=2e-3, atol=1e-5
    )


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
    labels = TopKTail(6, 2).decode(TopKTail(6, 2).encode(logits.clone()))
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


@pytest.mark.parametrize(("outcomes", "bits", "size"), [(65_536, 16, 34), (65_537, 24, 42), (1 << 24, 24, 42)])
def test_ids_take_the_smallest_type_that_holds_them(outcomes: int, bits: int, size: int) -> None:
    codec = TopKTail(outcomes, 8)
    logits = torch.zeros(2, outcomes)
    logits[0, -1], logits[1, outcomes // 2] = 5.0, 5.0
    encoded = codec.encode(logits)
    assert encoded["ids"].nbytes * 8 == bits * 2 * 8
    assert codec.bytes_per_row == size == sum(column.nbytes for column in encoded.values()) / 2
    ids = codec.decode(encoded).ids
    assert ids is not None and ids[:, 0].tolist() == [outcomes - 1, outcomes // 2]


def test_more_outcomes_than_24_bits_hold_take_32() -> None:
    ids = torch.tensor([[0, (1 << 24), (1 << 31) - 2]])
    assert torch.equal(unpacked_ids(packed_ids(ids, (1 << 31) - 1), (1 << 31) - 1), ids)


@given(
    arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(40, 400)), elements=st.floats(-4, 4, width=16)),
    st.integers(1, 9),
)
@settings(max_examples=50)
def test_the_largest_of_a_long_row_are_those_of_a_stable_sort(logits: np.ndarray, k: int) -> None:
    values, ids = largest(torch.from_numpy(logits), k)
    expected = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    assert ids.tolist() == expected.tolist()
    assert values.tolist() == np.take_along_axis(logits, expected, 1).tolist()


def test_the_settings_and_the_record_lead_to_the_same_codec() -> None:
    codec = codec_for(SoftLabelSettings(codec="top_k_tail", k=64), 20)
    assert codec.record() == {"name": "top_k_tail", "k": 20} == codec_of(codec.record(), 20).record()
    codec = codec_for(SoftLabelSettings(codec="top_k_sampled", k=16, head=4, hidden_states=True), 99, hidden_dim=8)
    assert codec.record() == {"name": "top_k_sampled", "k": 16, "head": 4, "hidden_dim": 8}
    assert codec_of(codec.record(), 99).columns == codec.columns
    with pytest.raises(SettingsError, match=r"unknown codec.*'best'"):
        codec_of({"name": "best"}, 9)


@pytest.mark.parametrize("name", ["dense", "logit", "top_k_tail", "sampled", "top_k_sampled"])
def test_hidden_states_lie_beside_the_labels_in_half_precision(name: str) -> None:
    outcomes = 1 if name == "logit" else 20
    codec = codec_of({"name": name, "k": 4, "head": 2, "hidden_dim": 3}, outcomes)
    bare = codec_of({"name": name, "k": 4, "head": 2}, outcomes)
    random = np.random.default_rng(0)
    logits, hidden = (torch.from_numpy(random.normal(size=(5, width)).astype(np.float32)) for width in (outcomes, 3))
    uniforms = random.random((5, codec.uniforms))
    encoded = codec.encode(logits.clone(), uniforms=uniforms, hidden=hidden)
    found, without = codec.decode(encoded), bare.decode(bare.encode(logits.clone(), uniforms=uniforms))
    assert codec.bytes_per_row == bare.bytes_per_row + 6 == sum(column.nbytes for column in encoded.values()) / 5
    assert found.hidden is not None and torch.equal(found.hidden, hidden.half().float())
    assert without.hidden is None and torch.equal(found.log_probs, without.log_probs)
    with pytest.raises(TrainingError, match="half precision"):
        codec.encode(logits, uniforms=uniforms, hidden=hidden * 1e6)


@given(arrays(np.float32, st.integers(1, 9), elements=st.floats(-30, 30, width=16)), st.sampled_from([0.5, 1.0, 4.0]))
def test_one_logit_a_row_gives_the_probabilities_of_yes_and_no_at_every_temperature(
    logits: np.ndarray, temperature: float
) -> None:
    codec = Logit(1)
    labels = codec.decode(codec.encode(torch.from_numpy(logits).unsqueeze(1))).at_temperature(temperature)
    assert labels.ids is None and labels.outcomes == 2
    yes = torch.sigmoid(torch.from_numpy(logits).double() / temperature)
    expected = torch.stack([1 - yes, yes], dim=1)
    np.testing.assert_allclose(labels.log_probs.exp().numpy(), expected.numpy(), rtol=5e-3, atol=1e-12)


def test_one_logit_a_row_is_for_one_outcome_only() -> None:
    with pytest.raises(SettingsError, match="one outcome"):
        Logit(5)
    with pytest.raises(TrainingError, match="not finite"):
        Logit(1).encode(torch.tensor([[np.nan]]))
