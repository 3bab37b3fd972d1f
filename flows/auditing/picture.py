"""The chain as a picture: the source on top, what was asked about at the bottom, one box a run.

What the next run reads comes from above. What is read further down comes along a line of its own, at the right, which
has the colour of the run that made it.
"""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import SettingsError
from components.storage.atomic import new_file
from flows.auditing.lineage import Link, Node, Trace
from flows.auditing.lineage_tree import size_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FORMATS = (".svg", ".png")
_BOX, _HEIGHT, _ROW, _COLUMN, _LANE = 3.3, 0.86, 1.22, 3.7, 0.2
_COLOURS = ("#2b6cb0", "#b7791f", "#2f855a", "#805ad5", "#c05621", "#319795", "#97266d", "#4a5568")
_INK, _PALE, _BAD, _WEAK, _GOOD = "#1a202c", "#718096", "#c53030", "#b7791f", "#2f855a"


def draw(trace: Trace, file: Path) -> None:
    """Write the picture.

    Raises:
        SettingsError: The file's name ends in neither ``.svg`` nor ``.png``.
    """
    if file.suffix.lower() not in _FORMATS:
        raise SettingsError(f"{file.name} is of no form that a picture can have", f"Call it {' or '.join(_FORMATS)}.")
    content = picture(trace, file.suffix.lower().removeprefix("."))
    with new_file(file) as temporary:
        temporary.write_bytes(content)


def picture(trace: Trace, form: str = "svg") -> bytes:
    """The picture's bytes; the same chain gives the same ones.

    Args:
        trace: A chain.
        form: ``svg`` or ``png``.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = _rows(trace)
    lanes = _lanes(trace, rows)
    widest = max((len(row) for row in rows.values()), default=1)
    width, height = widest * _COLUMN + max(len(lanes), 1) * _LANE + 0.2, (len(rows) or 1) * _ROW + 0.5
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "recstill", "font.family": "sans-serif"}):
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.axis("off")
        axes.text(0.2, 0.26, _cut(trace.subject.what, 70), fontsize=11, weight="bold", color=_INK, va="center")
        places = _places(rows)
        for node in trace.nodes:
            _edges(axes, node, places, lanes, widest * _COLUMN)
        for node in trace.nodes:
            _box(axes, node, places[id(node)])
        for number, (name, _) in enumerate(_sources(trace).items()):
            x, y = _COLUMN / 2 + 0.1 + number * _COLUMN, 0.5 + _ROW / 2
            if number < widest:
                _source(axes, name, (x, y))
                for node in trace.nodes:
                    if any(link.path == name and link.node is None for link in node.links):
                        to = places[id(node)]
                        _arrow(axes, (x, y + _HEIGHT / 2 - 0.16), (to[0], to[1] - _HEIGHT / 2), _PALE)
        buffer = io.BytesIO()
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        figure.savefig(buffer, format=form, dpi=130, metadata=metadata)
    return buffer.getvalue()


def _rows(trace: Trace) -> dict[int, list[Node]]:
    """The runs by their row: below everything that they were made of. Row 0 is that of the sources."""
    row: dict[int, int] = {}
    for node in reversed(trace.nodes):
        above = [row[id(link.node)] for link in node.links if link.node is not None]
        row[id(node)] = 1 + max(above, default=0)
    rows: dict[int, list[Node]] = {0: []}
    for node in sorted(trace.nodes, key=lambda one: row[id(one)]):
        rows.setdefault(row[id(node)], []).append(node)
    return rows


def _places(rows: dict[int, list[Node]]) -> dict[int, tuple[float, float]]:
    used = Counter(id(link.node) for nodes in rows.values() for node in nodes for link in node.links)
    places = {}
    for number, nodes in rows.items():
        # What most others are made of stays in the first column.
        for column, node in enumerate(sorted(nodes, key=lambda one: -used.get(id(one), 0))):
            places[id(node)] = (_COLUMN / 2 + 0.1 + column * _COLUMN, 0.5 + _ROW / 2 + number * _ROW)
    return places


def _lanes(trace: Trace, rows: dict[int, list[Node]]) -> dict[int, int]:
    """A line of its own for each run that others further down read."""
    row = {id(node): number for number, nodes in rows.items() for node in nodes}
    far = [
        link.node for node in trace.nodes for link in node.links if link.node and row[id(node)] - row[id(link.node)] > 1
    ]
    order = sorted({id(node): node for node in far}.values(), key=lambda one: -row[id(one)])
    return {id(node): number for number, node in enumerate(order)}


def _edges(axes: Axes, node: Node, places: dict[int, Any], lanes: dict[int, int], right: float) -> None:
    x, y = places[id(node)]
    for link in {id(link.node): link for link in node.links if link.node is not None}.values():
        from_x, from_y = places[id(link.node)]
        if round((y - from_y) / _ROW) == 1:
            _arrow(axes, (from_x, from_y + _HEIGHT / 2), (x, y - _HEIGHT / 2), _PALE)
            continue
        number = lanes[id(link.node)]
        lane, colour = right + number * _LANE, _COLOURS[number % len(_COLOURS)]
        start, end = from_y - 0.1, y + (number + 1) * _HEIGHT / (len(lanes) + 2) - _HEIGHT / 2
        axes.plot([from_x + _BOX / 2, lane, lane], [start, start, end], color=colour, lw=1.2, zorder=1)
        _arrow(axes, (lane, end), (x + _BOX / 2, end), colour)


def _box(axes: Axes, node: Node, place: tuple[float, float]) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = place
    edge = _BAD if node.recalls else _WEAK if node.labels else _GOOD
    axes.add_patch(
        FancyBboxPatch(
            (x - _BOX / 2, y - _HEIGHT / 2),
            _BOX,
            _HEIGHT,
            boxstyle="round,pad=0,rounding_size=0.07",
            facecolor="#fff5f5" if node.recalls else "white",
            edgecolor=edge,
            linewidth=1.5,
            linestyle="-" if node.statement is not None else "--",
            zorder=2,
        )
    )
    left = x - _BOX / 2 + 0.1
    largest = max(node.made, key=lambda made: made.bytes or 0, default=None)
    digest = node.digest or (largest.md5 if largest else "")
    state = "RECALLED" if node.recalls else "; ".join(node.labels) or "attested during the run"
    _text(axes, (left, y - 0.27), node.role.replace("_", " "), 10, _INK, weight="bold")
    _text(axes, (x + _BOX / 2 - 0.1, y - 0.27), size_of(largest.bytes if largest else None), 8, _PALE, ha="right")
    _text(axes, (left, y - 0.07), digest[:16], 8, _INK, family="monospace")
    _text(axes, (x + _BOX / 2 - 0.1, y - 0.07), _cut(", ".join(node.versions), 20), 8, _GOOD, ha="right")
    _text(axes, (left, y + 0.12), _cut(f"{node.run.address}  {_when(node)}", 50), 7.5, _PALE)
    _text(axes, (left, y + 0.30), _cut(state, 52), 7.5, edge)


def _source(axes: Axes, name: str, place: tuple[float, float]) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = place
    height = _HEIGHT - 0.32
    axes.add_patch(
        FancyBboxPatch(
            (x - _BOX / 2, y - height / 2),
            _BOX,
            height,
            boxstyle="round,pad=0,rounding_size=0.25",
            facecolor="#edf2f7",
            edgecolor=_PALE,
            linewidth=1.2,
            zorder=2,
        )
    )
    _text(axes, (x, y - 0.09), _cut(name, 44), 8.5, _INK, ha="center")
    _text(axes, (x, y + 0.11), "source", 7.5, _PALE, ha="center")


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "lw": 1.2, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
    axes.annotate("", xy=end, xytext=start, arrowprops=style, zorder=1)


def _text(axes: Axes, place: tuple[float, float], text: str, size: float, colour: str, **more: Any) -> None:
    axes.text(*place, text.replace("$", r"\$"), fontsize=size, color=colour, va="center", zorder=3, **more)


def _sources(trace: Trace) -> dict[str, Link]:
    return {link.path: link for link in trace.sources}


def _when(node: Node) -> str:
    at = (node.statement.finished if node.statement else "") or (node.commit.at if node.commit else "")
    return at[:10]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
