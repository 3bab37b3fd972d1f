"""Quality against a cost of all that a search has tried, with the frontier, the limits and what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from components.evaluation.frontier import Point, frontier
from components.evaluation.plots import COLORS, chart, is_round, shortened, svg_of

_MET, _MISSED, _OWN, _CHOSEN = COLORS["student"], COLORS["untrained"], COLORS["baseline"], COLORS["shipped"]


def frontier_plot(
    points: Sequence[Point],
    cost: str,
    label: str,
    *,
    quality: str,
    teacher: float,
    floor: float,
    limit: float | None,
    chosen: Point | None,
    own: int | None,
) -> str:
    """An SVG element; empty when no point has both figures.

    Args:
        points: All of them.
        cost: Key of the figure on the logarithmic axis.
        label: Of that axis.
        quality: What quality is measured by.
        teacher: The whole teacher's quality.
        floor: The least quality that is asked for.
        limit: The most that the budget allows of this cost; None: any.
        chosen: The point to ring; None: there is none.
        own: Number of the trial of the recipe as it was; None: it was not tried.
    """
    known = [point for point in points if point.judged and cost in point.figures]
    if not known:
        return ""
    with chart(f"frontier {cost}", (7.4, 4.6)) as (figure, axes):
        axes.set_xscale("log")
        for met, color in ((False, _MISSED), (True, _MET)):
            _dots(axes, [point for point in known if point.verdict.met == met], cost, color)
        mine = [point for point in known if point.trial == own]
        axes.scatter(*_places(mine, cost), s=34, facecolors="none", edgecolors=_OWN, linewidths=1.4, zorder=4)
        best = frontier(known, cost)
        axes.plot(*_places(best, cost), color=_MET, linewidth=1.2, drawstyle="steps-post", zorder=2)
        if chosen is not None and cost in chosen.figures:
            axes.scatter(
                *_places([chosen], cost), s=170, facecolors="none", edgecolors=_CHOSEN, linewidths=1.8, zorder=5
            )
        _widen(axes, known, cost, (teacher, floor), limit)
        axes.axhline(teacher, color=COLORS["teacher"], linewidth=1, linestyle=":", zorder=1)
        axes.axhline(floor, color=_MET, linewidth=1, linestyle="--", zorder=1)
        if limit is not None:
            axes.axvline(limit, color=_MET, linewidth=1, linestyle="--", zorder=1)
        axes.set_xlabel(label)
        axes.set_ylabel(f"validation {quality}")
        axes.xaxis.set_major_formatter(lambda value, _: shortened(value))
        axes.xaxis.set_minor_formatter(lambda value, _: shortened(value) if is_round(value, axes) else "")
        _legend(axes, chosen is not None, bool(mine))
        figure.tight_layout()
        return svg_of(figure, f"frontier-{cost}")


def _places(points: Sequence[Point], cost: str) -> tuple[list[float], list[float]]:
    return [float(point.figures[cost]) for point in points], [point.quality for point in points]


def _dots(axes: Axes, points: Sequence[Point], cost: str, color: str) -> None:
    axes.scatter(*_places(points, cost), s=22, color=color, linewidths=0, alpha=0.85, zorder=3)


def _widen(axes: Axes, points: Sequence[Point], cost: str, lines: tuple[float, ...], limit: float | None) -> None:
    costs, qualities = _places(points, cost)
    across = np.log10([*costs, *([] if limit is None else [limit])])
    room = 0.08 * max(float(np.ptp(across)), 0.3)
    axes.set_xlim(10 ** (across.min() - room), 10 ** (across.max() + room))
    up = np.array([*qualities, *lines])
    low = max(float(up.min()), 0.6 * max(lines))  # failures would press all others into one line
    room = 0.06 * max(float(up.max()) - low, 1e-3)
    axes.set_ylim(low - room, up.max() + room)


def _legend(axes: Axes, chosen: bool, own: bool) -> None:
    ring: dict[str, Any] = {"linestyle": "", "marker": "o", "markerfacecolor": "none"}
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=5, color=_MET, label="meets all limits"),
        Line2D([], [], linestyle="", marker="o", markersize=5, color=_MISSED, label="misses one"),
        Line2D([], [], color=COLORS["teacher"], linestyle=":", label="teacher"),
        Line2D([], [], color=_MET, linestyle="--", label="limits"),
    ]
    if own:
        handles.append(Line2D([], [], color=_OWN, markeredgewidth=1.4, markersize=6, label="recipe as it was", **ring))
    if chosen:
        handles.append(Line2D([], [], color=_CHOSEN, markeredgewidth=1.8, markersize=10, label="chosen", **ring))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, handletextpad=0.3)
