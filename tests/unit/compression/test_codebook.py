import numpy as np

from components.compression.codebook import codebook


def test_few_different_values_are_kept_exactly() -> None:
    values = np.array([[0.5, -1.0, 0.5], [2.0, 2.0, -1.0]], np.float32)
    indices, entries = codebook(values, 16)
    assert indices.dtype == np.uint8 and indices.shape == values.shape
    assert np.array_equal(entries[indices], values)


def test_more_levels_err_less_and_the_same_values_give_the_same_codebook() -> None:
    values = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    errors = []
    for levels in (4, 16, 64):
        indices, entries = codebook(values, levels)
        assert len(entries) <= levels
        errors.append(np.square(entries[indices] - values).mean())
    assert errors[0] > 4 * errors[1] > 16 * errors[2]
    assert np.array_equal(codebook(values, 16)[1], codebook(values, 16)[1])


def test_it_errs_less_than_evenly_spaced_levels() -> None:
    values = np.random.default_rng(0).normal(size=4000).astype(np.float32)
    indices, entries = codebook(values, 16)
    even = np.linspace(values.min(), values.max(), 16, dtype=np.float32)
    nearest = even[np.abs(values[:, None] - even).argmin(axis=1)]
    assert np.square(entries[indices] - values).mean() < 0.6 * np.square(nearest - values).mean()
