import numpy as np
import pytest

from components.compression import gptq
from components.compression.gptq import Products, gptq_layer, gptq_rows, row_moments
from components.compression.rowwise import RowBlocks, quantized_rows

ROWS = 60


def rows(width: int = 40) -> np.ndarray:
    random = np.random.default_rng(0)
    return (random.normal(size=(ROWS, width)) * random.uniform(0.2, 2, (ROWS, 1))).astype(np.float32) * 0.5


def vectors(width: int = 40, count: int = 400) -> np.ndarray:
    """Of histories: a few directions have the most, and all have a part in common."""
    random = np.random.default_rng(1)
    directions = random.normal(size=(width, width)) / 4
    spread = random.normal(size=(count, width)) * 0.8 ** np.arange(width)
    return (spread @ directions + 0.2).astype(np.float32)


def softmax(scores: np.ndarray) -> np.ndarray:
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(likely / likely.sum(axis=1, keepdims=True))


def divergence(matrix: np.ndarray, stored: RowBlocks, seen: np.ndarray) -> float:
    """Kullback-Leibler, in nats a history."""
    expected, found = softmax(seen @ matrix.T), softmax(seen @ stored.restored().T)
    return float((expected * np.log(expected / found)).sum(axis=1).mean())


def errors(matrix: np.ndarray, stored: RowBlocks, products: Products) -> np.ndarray:
    """``(rows,)``, ``e M e^T``."""
    error = matrix.astype(np.float64) - stored.restored()
    found = [np.einsum("rd,rde,re->r", error[part], each, error[part]) for part, each in row_moments(matrix, products)]
    return np.concatenate(found)


@pytest.mark.parametrize("bits", [4, 2])
@pytest.mark.parametrize("width", [32, 40])
def test_a_softmax_changes_much_less_than_with_the_nearest_codes(bits: int, width: int) -> None:
    matrix, products = rows(width), Products(vectors(width))
    nearest, fitted = quantized_rows(matrix, bits, 32), gptq_rows(matrix, bits, 32, products)
    unseen = vectors(width, 4000)[400:]
    assert divergence(matrix, fitted, unseen) < 0.6 * divergence(matrix, nearest, unseen)
    assert (errors(matrix, fitted, products) <= errors(matrix, nearest, products) * (1 + 1e-4)).all()


@pytest.mark.parametrize("bits", [4, 2])
def test_outputs_of_a_layer_err_much_less_than_with_the_nearest_codes(bits: int) -> None:
    matrix, seen = rows(), vectors()
    stored = gptq_layer(matrix, bits, 32, seen.T @ seen)
    unseen = vectors(count=4000)[400:]
    lost = [
        np.square(unseen @ (each.restored() - matrix).T).mean() for each in (stored, quantized_rows(matrix, bits, 32))
    ]
    assert lost[0] < 0.5 * lost[1]
    assert np.isfinite(gptq_layer(matrix, bits, 32, np.zeros((40, 40))).restored()).all()


def test_the_matrix_of_a_row_is_its_block_of_the_fisher_information(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gptq, "_OF_ALL", 0.0)
    monkeypatch.setattr(gptq, "_OF_LOOKUPS", 0.0)
    matrix, seen, bias = rows(16), vectors(16), np.linspace(-1, 1, ROWS)
    moments = np.concatenate([each for _, each in row_moments(matrix, Products(seen, bias))])
    likely = softmax(seen @ matrix.T + bias)
    for row in (0, 17, ROWS - 1):
        plain = sum(p * (1 - p) * np.outer(h, h) for p, h in zip(likely[:, row], seen.astype(np.float64), strict=True))
        assert np.allclose(moments[row], plain / (np.trace(plain) / 16), rtol=1e-3, atol=1e-4)


def test_only_the_histories_that_an_item_is_likeliest_for_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, seen = rows(16) * 4, vectors(16)
    whole = np.concatenate([each for _, each in row_moments(matrix, Products(seen))])
    monkeypatch.setattr(gptq, "_HISTORIES_A_ROW", 200)
    part = np.concatenate([each for _, each in row_moments(matrix, Products(seen))])
    assert not np.array_equal(whole, part)
    assert np.linalg.norm(whole - part) < 0.05 * np.linalg.norm(whole)


@pytest.mark.parametrize("bits", [4, 2])
def test_no_single_code_could_be_better(bits: int) -> None:
    matrix, products = rows(16), Products(vectors(16))
    stored = gptq_rows(matrix, bits, 16, products)
    moments = np.concatenate([each for _, each in row_moments(matrix, products)])
    error, scales = matrix - stored.restored(), stored.scales
    codes = np.rint(stored.restored() / scales)
    reference = errors(matrix, stored, products)
    better = 0
    for column in range(16):
        for step in (-1, 1):
            moved = error.astype(np.float64)
            moved[:, column] -= step * scales[:, 0]
            within = (codes[:, column] + step >= -(2 ** (bits - 1))) & (codes[:, column] + step < 2 ** (bits - 1))
            found = np.einsum("rd,rde,re->r", moved, moments, moved)
            better += int((within & (found < reference * (1 - 1e-4))).sum())
    # Coordinate descent ends after so many sweeps, settled or not.
    assert better <= 0.02 * codes.size


def test_a_part_at_a_time_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, products = rows(), Products(vectors())
    whole = gptq_rows(matrix, 4, 32, products)
    monkeypatch.setattr(gptq, "_ROWS_AT_ONCE", 7)
    monkeypatch.setattr(gptq, "_SCORED_AT_ONCE", 11)
    parts = gptq_rows(matrix, 4, 32, products)
    # Sums of another shape may break a tie otherwise.
    assert np.mean(whole.restored() == parts.restored()) > 0.97


@pytest.mark.parametrize("bits", [4, 2])
def test_rows_of_zeros_stay_zero(bits: int) -> None:
    matrix = rows()
    matrix[1] = 0
    assert not gptq_rows(matrix, bits, 32, Products(vectors())).restored()[1].any()


def test_vectors_of_nothing_leave_the_nearest_codes() -> None:
    matrix = rows()
    given = gptq_rows(matrix, 4, 32, Products(np.zeros((3, 40), np.float32))).restored()
    nearest = quantized_rows(matrix, 4, 32).restored()
    assert np.square(given - matrix).sum() <= np.square(nearest - matrix).sum() * (1 + 1e-6)
    assert np.abs(given - nearest).max() < np.abs(matrix).max() / 7


def test_an_item_that_is_likely_for_nobody_is_rounded_by_what_is_known_of_all() -> None:
    matrix, bias = rows(), np.zeros(ROWS, np.float32)
    bias[3] = -1e4
    stored = gptq_rows(matrix, 4, 32, Products(vectors(), bias))
    assert np.isfinite(stored.restored()).all()
    assert np.abs(stored.restored()[3] - matrix[3]).max() < np.abs(matrix[3]).max() / 2


def test_padding_holds_the_code_of_zero() -> None:
    stored = gptq_rows(rows(24), 4, 16, Products(vectors(24)))
    assert stored.codes.shape == (ROWS, 2, 8)
    assert (stored.codes[:, 1, 4:] == 0x88).all()
