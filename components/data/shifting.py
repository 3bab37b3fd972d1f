"""Copies of images moved by whole pixels: more to learn from, and soft labels for each copy."""

from __future__ import annotations

import numpy as np


def moves(steps: int) -> list[tuple[int, int]]:
    """Rows down and columns right of every place that ``steps`` steps reach at most; the first is the image's own."""
    reach = range(-steps, steps + 1)
    found = [(down, right) for down in reach for right in reach if abs(down) + abs(right) <= steps]
    return sorted(found, key=lambda move: (abs(move[0]) + abs(move[1]), move))


def moved(images: np.ndarray, down: int, right: int, fill: float) -> np.ndarray:
    """Images ``(N, rows, columns)`` moved; what comes in from outside is ``fill``, what goes out is lost."""
    _, rows, columns = images.shape
    found = np.full_like(images, fill)
    to_rows, of_rows = _overlap(rows, down)
    to_columns, of_columns = _overlap(columns, right)
    found[:, to_rows, to_columns] = images[:, of_rows, of_columns]
    return found


def with_moved_copies(values: np.ndarray, shape: tuple[int, int], steps: int) -> np.ndarray:
    """Images ``(N, D)``, and after them all of them again for each further place of :func:`moves`.

    What comes in from outside is the median of the pixels at the rim: the background, dark or light.
    """
    images = values.reshape(-1, *shape)
    rim = np.ones(shape, dtype=bool)
    rim[1:-1, 1:-1] = False
    fill = float(np.median(images[:, rim]))
    return np.concatenate([moved(images, *move, fill).reshape(len(values), -1) for move in moves(steps)])


def _overlap(size: int, by: int) -> tuple[slice, slice]:
    """Where what stays inside goes to, and where it comes from."""
    return slice(max(by, 0), size + min(by, 0)), slice(max(-by, 0), size - max(by, 0))
