import numpy as np
import pytest

from components.compression.product import ENTRIES, product_quantized


def clustered(rows: int = 600, width: int = 16) -> np.ndarray:
    """Rows around 40 centres, as the items of a catalogue lie."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(40, width))
    return (centres[random.integers(40, size=rows)] + 0.1 * random.normal(size=(rows, width))).astype(np.float32)


def error(matrix: np.ndarray, restored: np.ndarray) -> float:
    return float(np.square(restored - matrix).sum() / np.square(matrix).sum())


@pytest.mark.parametrize("part_width", [2, 4, 8])
@pytest.mark.parametrize("width", [16, 20])
def test_codes_are_a_byte_each_and_restore_rows_nearby(width: int, part_width: int) -> None:
    matrix = clustered(width=width)
    product = product_quantized(matrix, part_width)
    assert product.codes.shape == (600, -(-width // part_width)) and product.codes.dtype == np.uint8
    assert product.restored().shape == matrix.shape
    assert error(matrix, product.restored()) < 0.01


def test_each_code_is_the_entry_of_least_distance() -> None:
    matrix = clustered()
    product = product_quantized(matrix, 8)
    for place in range(2):
        part = matrix[:, 8 * place : 8 * place + 8]
        distance = np.square(part[:, None] - product.entries[place][None]).sum(axis=2)
        chosen = distance[np.arange(len(part)), product.codes[:, place]]
        assert np.allclose(chosen, distance.min(axis=1), atol=1e-5)


def test_few_rows_are_restored_to_the_precision_of_the_entries() -> None:
    matrix = clustered(ENTRIES // 2)
    assert np.abs(product_quantized(matrix, 4).restored() - matrix).max() <= np.abs(matrix).max() / 127


def test_going_on_from_codes_follows_the_rows() -> None:
    matrix = clustered()
    moved = matrix + 0.05 * np.random.default_rng(1).normal(size=matrix.shape).astype(np.float32)
    before = product_quantized(matrix, 4)
    assert error(moved, product_quantized(moved, 4, before).restored()) < error(moved, before.restored())


def test_the_same_rows_give_the_same_codes_and_zeros_stay_zero() -> None:
    one, other = (product_quantized(clustered(), 4) for _ in range(2))
    assert np.array_equal(one.codes, other.codes) and np.array_equal(one.levels, other.levels)
    assert not product_quantized(np.zeros((5, 8), np.float32), 4).restored().any()
