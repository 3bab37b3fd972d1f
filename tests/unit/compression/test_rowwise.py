import numpy as np
import pytest

from components.compression.rowwise import best_block, quantized_rows


def rows(count: int = 50, width: int = 40) -> np.ndarray:
    random = np.random.default_rng(0)
    return (random.normal(size=(count, width)) * random.uniform(0.2, 2, (count, 1))).astype(np.float32)


@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("width", [16, 24, 40, 64])
def test_restored_values_are_near(bits: int, width: int) -> None:
    matrix = rows(width=width)
    restored = quantized_rows(matrix, bits, 32).restored()
    assert restored.shape == matrix.shape
    error = np.sqrt(np.square(restored - matrix).mean() / np.square(matrix).mean())
    assert error < {8: 0.01, 4: 0.11, 2: 0.36}[bits]


def test_four_bits_err_less_than_with_the_largest_magnitude_as_range() -> None:
    matrix = rows(width=32)
    scale = np.abs(matrix).max(axis=1, keepdims=True) / 7
    plain = np.square(np.rint(matrix / scale) * scale - matrix).sum()
    assert np.square(quantized_rows(matrix, 4, 32).restored() - matrix).sum() < 0.95 * plain


def test_four_bit_codes_are_packed_with_the_first_value_low() -> None:
    matrix = np.zeros((1, 16), np.float32)
    matrix[0, :2] = -7.0, 7.0
    quantized = quantized_rows(matrix, 4, 16)
    assert quantized.codes.shape == (1, 1, 8)
    first, second = int(quantized.codes[0, 0, 0]) & 15, int(quantized.codes[0, 0, 0]) >> 4
    assert first < 8 < second
    assert (quantized.codes[0, 0, 1:] == 0x88).all()


def test_two_bit_codes_are_packed_with_the_first_value_lowest() -> None:
    matrix = np.zeros((1, 16), np.float32)
    matrix[0, :4] = -2.0, 1.0, 0.0, -1.0
    quantized = quantized_rows(matrix, 2, 16)
    assert quantized.codes.shape == (1, 1, 4)
    assert [int(quantized.codes[0, 0, 0]) >> shift & 3 for shift in (0, 2, 4, 6)] == [0, 3, 2, 1]
    assert (quantized.codes[0, 0, 1:] == 0xAA).all()


def test_with_two_bits_the_longer_side_is_where_a_block_needs_it() -> None:
    matrix = np.tile(np.array([[1.0, -0.5, 0.0, 0.5]], np.float32), (2, 4))
    matrix[1] *= -1
    quantized = quantized_rows(matrix, 2, 16)
    assert np.abs(quantized.restored() - matrix).max() < 0.01
    assert sorted(np.sign(quantized.levels).ravel()) == [-1, 1]


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_the_ranges_of_a_matrix_that_was_much_the_same_can_be_taken(bits: int) -> None:
    matrix = rows(width=40)
    before = quantized_rows(matrix, bits, 32)
    assert np.array_equal(quantized_rows(matrix, bits, 32, before).codes, before.codes)
    moved = quantized_rows(matrix * 1.01, bits, 32, before)
    assert np.array_equal(moved.levels, before.levels) and moved.unit == before.unit
    assert not np.array_equal(moved.codes, before.codes) or bits == 2


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_rows_of_zeros_stay_zero(bits: int) -> None:
    matrix = rows(4, 16)
    matrix[1] = 0
    assert not quantized_rows(matrix, bits, 16).restored()[1].any()
    assert not quantized_rows(np.zeros((2, 16), np.float32), bits, 16).restored().any()


def test_the_block_is_the_one_that_stores_fewest_bytes() -> None:
    assert best_block(64, 32, 4) == 32
    assert best_block(64, 256, 4) == 64
    assert best_block(48, 64, 8) == 16
    assert best_block(40, 32, 8) == 16
