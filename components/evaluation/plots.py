"""The report's charts, as SVG that takes the page's text colour and is the same for the same numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from components.evaluation.labels import place_labels

# The colours of Okabe and Ito, "Color universal design", 2008: told apart by colour-blind readers too.
COLORS = {
    "teacher": "#0072B2",
    "teacher_member": "#3FA0DA",
    "baseline": "#E08A00",
    "student": "#009E73",
    "pruned": "#D55E00",
    "untrained": "#8A8A8A",
    "shipped": "#B0478A",
}
MARKERS = {"teacher": "*", "teacher_member": "D", "baseline": "s", "student": "^", "pruned": "o", "untrained": "x"}
NAMES = {
    "teacher": "teacher",
    "teacher_member": "one teacher member, merely quantized",
    "baseline": "student without teacher",
    "student": "student",
    "pruned": "pruned student",
}
# Becomes `currentColor` in the SVG.
_INK = "#123456"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.12,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


def cost_plot(
    table: pl.DataFrame,
    column: str,
    label: str,
    *,
    quality: str,
    shipped: str | None,
    floor: float,
    limit: float | None,
) -> str:
    """Quality against a cost, an SVG element.

    Args:
        table: Of :func:`components.evaluation.report_data.figure_table`.
        column: The cost, which is shown on a logarithmic axis.
        label: Of that axis.
        quality: What quality is measured by.
        shipped: The contender to ring; None: none ships.
        floor: The least quality that the gate lets pass.
        limit: The most that the budget allows; None: no limit.
    """
    if column == "bytes":  # a network and its fp32 export are one point
        exported = table["contender"].str.ends_with(".fp32")
        twins = table.filter(exported)["contender"].str.strip_suffix(".fp32").to_list()
        table = table.filter(~pl.col("contender").is_in(twins))
    names, families = table["contender"].to_list(), table["family"].to_list()
    points = table.select(column, "quality").to_numpy()
    with chart(f"cost {column}", (7.4, 4.6)) as (figure, axes):
        axes.set_xscale("log")
        axes.tick_params(axis="x", which="both", length=3, pad=4)
        for family in dict.fromkeys(families):
            own = points[[other == family for other in families]]
            size = 110 if family == "teacher" else 34
            axes.scatter(
                own[:, 0], own[:, 1], s=size, marker=MARKERS[family], color=COLORS[family], linewidths=0.8, zorder=3
            )
        if shipped in names:
            x, y = points[names.index(shipped)]
            axes.scatter(x, y, s=170, facecolors="none", edgecolors=COLORS["shipped"], linewidths=1.8, zorder=4)
        _widen(axes, points, floor, limit)
        _mark_limits(axes, floor, limit)
        axes.set_xlabel(label)
        axes.set_ylabel(quality)
        axes.xaxis.set_major_formatter(lambda value, _: shortened(value))
        axes.xaxis.set_minor_formatter(lambda value, _: shortened(value) if is_round(value, axes) else "")
        _legend_of_families(axes, list(dict.fromkeys(families)), shipped is not None)
        figure.tight_layout()
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        order = sorted(range(len(names)), key=lambda place: (names[place] != shipped, families[place], names[place]))
        place_labels(
            axes,
            canvas.get_renderer(),
            points[order],
            labels=[_form(names[place], table) for place in order],
            colors=[COLORS[families[place]] for place in order],
        )
        return svg_of(figure, f"cost-{column}")


def curves_plot(table: pl.DataFrame, quality: str) -> str:
    """Quality on the validation points by epoch of every network, an SVG element.

    Args:
        table: Of :func:`components.evaluation.report_data.curve_table`.
        quality: What quality is measured by.
    """
    with chart("curves", (7.4, 3.8)) as (figure, axes):
        for name, curve in _by(table, "network").items():
            family = "teacher" if name.startswith(("member-", "generation-")) else name
            best = curve.row(int(curve["validation"].arg_max() or 0), named=True)
            number = int(name.rpartition("-")[2]) if family == "teacher" else 0
            axes.plot(
                *curve.select("epoch", "validation").to_numpy().T,
                color=COLORS.get(family, COLORS["untrained"]),
                linestyle=("-", "--", "-.", ":")[number % 4],
                linewidth=0.8 if name.startswith("generation-") else 1.6,
                label=f"teacher, {_spoken(name)}" if family == "teacher" else NAMES.get(name, name),
            )
            axes.plot(best["epoch"], best["validation"], "o", ms=5, color=COLORS.get(family, "#8A8A8A"))
        axes.set_xlabel("epoch (a dot marks the weights that were kept)")
        axes.set_ylabel(f"validation {quality}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(loc="lower right", ncols=2)
        figure.tight_layout()
        return svg_of(figure, "curves")


def strata_plot(
    table: pl.DataFrame, families: Mapping[str, str], shipped: str | None, *, quality: str, axis: str
) -> str:
    """Quality by group of held-out points, an SVG element.

    Args:
        table: Of :func:`components.evaluation.report_data.strata_table`.
        families: Family of each contender.
        shipped: The contender that ships, if any.
        quality: What quality is measured by.
        axis: What the groups are of.
    """
    ranges = table.unique("bucket").sort("bucket").iter_rows(named=True)
    ticks = [f"{row['group']}\n{row['targets']} targets" for row in ranges]
    with chart("strata", (7.4, 3.9)) as (figure, axes):
        series = _by(table, "contender")
        width = 0.84 / len(series)
        for number, (name, values) in enumerate(series.items()):
            color = COLORS["shipped"] if name == shipped else COLORS[families[name]]
            untrained = families[name] == "untrained"
            axes.bar(
                values["bucket"].to_numpy() + (number - (len(series) - 1) / 2) * width,
                values["quality"].to_numpy(),
                width * 0.92,
                color=color,
                hatch="///" if untrained else None,
                edgecolor="white" if untrained else color,
                linewidth=0,
                label=f"{name} (ships)" if name == shipped else NAMES.get(name, name),
            )
        axes.set_xticks(range(len(ticks)), ticks)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel(axis)
        axes.set_ylabel(quality)
        axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.24))
        figure.tight_layout()
        return svg_of(figure, "strata")


@contextmanager
def chart(salt: str, size: tuple[float, float]) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes in the report's style; ``salt`` makes the ids in the SVG the same every time."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=size)
        yield figure, figure.subplots()


def _spoken(name: str) -> str:
    """``generation 1, member 0`` of ``generation-1-member-0``."""
    return name.replace("-member-", ", member ").replace("-", " ")


def _by(table: pl.DataFrame, column: str) -> dict[str, pl.DataFrame]:
    return {str(key[0]): part for key, part in table.group_by(column, maintain_order=True)}


def _widen(axes: Axes, points: np.ndarray, floor: float, limit: float | None) -> None:
    """Limits with room for labels, wide enough to show the limits of budget and gate."""
    across = np.log10([*points[:, 0], *([] if limit is None else [limit])])
    room = 0.10 * max(float(np.ptp(across)), 0.5)
    axes.set_xlim(10 ** (across.min() - room), 10 ** (across.max() + room))
    up = np.array([*points[:, 1], floor])
    # Contenders far below everything else would press all others into one line.
    low = max(up.min(), 0.5 * floor)
    room = 0.08 * max(float(up.max() - low), 1e-3)
    axes.set_ylim(low - room, up.max() + 1.5 * room)


def _mark_limits(axes: Axes, floor: float, limit: float | None) -> None:
    left, right = axes.get_xlim()
    _, top = axes.get_ylim()
    end = right if limit is None else limit
    axes.fill_between([left, end], floor, top, color=COLORS["student"], alpha=0.09, linewidth=0, zorder=0)
    axes.hlines(floor, left, end, color=COLORS["student"], linewidth=1, linestyle="--", zorder=1)
    if limit is not None:
        axes.vlines(limit, floor, top, color=COLORS["student"], linewidth=1, linestyle="--", zorder=1)
    axes.annotate(
        "may ship", (left, top), xytext=(5, -5), textcoords="offset points", va="top", color=COLORS["student"], size=8
    )


def _legend_of_families(axes: Axes, families: list[str], ships: bool) -> None:
    handles = [
        Line2D([], [], linestyle="", marker=MARKERS[family], color=COLORS[family], label=NAMES.get(family, family))
        for family in families
    ]
    if ships:
        ring: dict[str, Any] = {"markerfacecolor": "none", "markeredgewidth": 1.8, "markersize": 10}
        handles.append(Line2D([], [], linestyle="", marker="o", color=COLORS["shipped"], label="ships", **ring))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3, handletextpad=0.3)


def _form(name: str, table: pl.DataFrame) -> str:
    """``int8_table8`` of ``pruned.int8_table8``; of a network in torch, its runtime when ONNX is there as well."""
    family, _, form = name.partition(".")
    if form:
        return form
    others = table["contender"].str.starts_with(f"{family}.").any()
    return "torch" if others else NAMES.get(name, name).split(",")[0]


def shortened(value: float) -> str:
    """``20 k`` of 20,000: a number on an axis."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


def is_round(value: float, axes: Axes) -> bool:
    """Is a minor tick worth a number? On a short axis 2 and 5 are."""
    left, right = axes.get_xlim()
    first = round(value / 10 ** np.floor(np.log10(value)))
    return bool(np.log10(right / left) < 2.2 and first in (2, 5))


def svg_of(figure: Figure, name: str) -> str:
    """An SVG element in the page's text colour, its ids headed by ``name``."""
    stream = io.StringIO()
    figure.savefig(
        stream,
        format="svg",
        transparent=True,
        bbox_inches="tight",
        pad_inches=0.05,
        metadata={"Date": None, "Creator": None},
    )
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    # Several charts share a page: each id gets its chart's name.
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    size = re.search(r'width="([\d.]+)pt" height="([\d.]+)pt"', text)
    return text if size is None else text.replace(size[0], f'role="img" width="{size[1]}" height="{size[2]}"', 1)
