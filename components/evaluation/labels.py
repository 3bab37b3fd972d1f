"""Labels of points in a chart that neither cover each other nor a point, as far as there is room."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.transforms import Bbox

_SIZE = 8
# Where a label may go: from near to far, in points from its own point, and in which direction.
_DISTANCES = (7, 15, 25, 38, 54, 72, 90)
_ANGLES = np.deg2rad((0, 180, 90, 270, 45, 315, 135, 225, 20, 340, 160, 200))
_POINT = 5
_MARGIN = 2


def place_labels(
    axes: Axes, renderer: RendererBase, points: np.ndarray, *, labels: Sequence[str], colors: Sequence[str]
) -> None:
    """Write a label beside each point, with a thin line to it where it had to go far.

    Args:
        axes: The chart, with its final limits.
        renderer: Measures text.
        points: ``(n, 2)`` in data coordinates; the first get the best places.
        labels: One a point.
        colors: One a point.
    """
    pixels = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
    places = axes.transData.transform(points)
    taken = [Bbox.from_extents(*(place - _POINT * pixels), *(place + _POINT * pixels)) for place in places]
    room = axes.get_window_extent(renderer)
    for point, place, label, color in zip(points, places, labels, colors, strict=True):
        size = _measured(axes, renderer, label)
        best_cost, best_offset, best_box = np.inf, (0.0, 0.0), room
        for distance, angle in product(_DISTANCES, _ANGLES):
            offset = (float(distance * np.cos(angle)), float(distance * np.sin(angle)))
            box = _box(place + np.multiply(offset, pixels), size, offset)
            cost = _overlap(box, taken) + 4 * _outside(box, room)
            if cost < best_cost:
                best_cost, best_offset, best_box = cost, offset, box
            if cost == 0:
                break
        taken.append(best_box)
        _write(axes, label, point, best_offset, color)


def _measured(axes: Axes, renderer: RendererBase, label: str) -> np.ndarray:
    text = axes.text(0, 0, label, fontsize=_SIZE)
    box = text.get_window_extent(renderer)
    text.remove()
    return np.array([box.width, box.height])


def _alignment(offset: float) -> int:
    """How a label stands to its place: -1 before it, 0 centred, 1 after it."""
    return 0 if abs(offset) < 3 else int(np.sign(offset))


def _box(place: np.ndarray, size: np.ndarray, offset: tuple[float, float]) -> Bbox:
    low = place - size * [(1 - _alignment(part)) / 2 for part in offset]
    return Bbox.from_bounds(*low, *size).padded(_MARGIN)


def _write(axes: Axes, label: str, point: np.ndarray, offset: tuple[float, float], color: str) -> None:
    line = {"arrowstyle": "-", "color": color, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 0, "shrinkB": 4}
    axes.annotate(
        label,
        (float(point[0]), float(point[1])),
        xytext=offset,
        textcoords="offset points",
        fontsize=_SIZE,
        color=color,
        ha=("right", "center", "left")[_alignment(offset[0]) + 1],
        va=("top", "center", "bottom")[_alignment(offset[1]) + 1],
        arrowprops=line if max(map(abs, offset)) > 12 else None,
    )


def _overlap(box: Bbox, others: list[Bbox]) -> float:
    found = (Bbox.intersection(box, other) for other in others)
    return float(sum(both.width * both.height for both in found if both is not None))


def _outside(box: Bbox, room: Bbox) -> float:
    inside = Bbox.intersection(box, room)
    return float(box.width * box.height - (0 if inside is None else inside.width * inside.height))
