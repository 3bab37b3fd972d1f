"""Who came of what, all versions at once, as SVG: data sets, teachers, students, and the versions they became.

A box is content, by its digest: what several versions share is drawn once. Damaged and recalled versions are red.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

from flows.auditing.reporting import VersionState

# Keys of a release's lineage, as people read them; a digest stands in each column.
_COLUMNS = ("dataset", "teacher", "soft labels", "student")
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _TOP = 168, 34, 62, 12, 34
_MOST = 60
_SHOWN = 12


class _Box(NamedTuple):
    column: int
    row: int

    @property
    def x(self) -> int:
        return self.column * (_WIDTH + _GAP_X)

    @property
    def y(self) -> int:
        return _TOP + self.row * (_HEIGHT + _GAP_Y)


def overview(versions: Sequence[VersionState]) -> str:
    """An SVG; empty when no version's lineage is known. Of very many versions the newest are drawn."""
    known = [one for one in versions if one.lineage][:_MOST]
    if not known:
        return ""
    places: dict[tuple[int, str], _Box] = {}
    rows = [0] * (len(_COLUMNS) + 1)
    bad: dict[tuple[int, str], bool] = {}
    edges: dict[tuple[tuple[int, str], tuple[int, str]], bool] = {}

    def place(column: int, name: str, wrong: bool) -> tuple[int, str]:
        node = (column, name)
        if node not in places:
            places[node] = _Box(column, rows[column])
            rows[column] += 1
        # What only recalled versions came of is what was recalled, as far as the picture can say.
        bad[node] = bad.get(node, True) and wrong
        return node

    for one in known:
        wrong = bool(one.recalls) or not one.whole
        chain = [
            place(column, one.lineage[title.replace(" ", "_")], bool(one.recalls))
            for column, title in enumerate(_COLUMNS)
            if title.replace(" ", "_") in one.lineage
        ]
        chain.append(place(len(_COLUMNS), str(one), wrong))
        for edge in itertools.pairwise(chain):
            edges[edge] = edges.get(edge, False) or one.live
    width = (len(_COLUMNS) + 1) * (_WIDTH + _GAP_X) - _GAP_X
    height = _TOP + max(rows) * (_HEIGHT + _GAP_Y)
    by_name = {str(one): one for one in known}
    titles = [*_COLUMNS, "version"]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="Which versions came of which data sets and teachers" style="min-width:{width * 3 // 4}px">'
    ]
    for column, title in enumerate(titles):
        parts.append(f'<text class="head" x="{column * (_WIDTH + _GAP_X)}" y="16">{escape(title)}</text>')
    for (start, end), live in edges.items():
        a, b = places[start], places[end]
        x1, y1, x2, y2 = a.x + _WIDTH, a.y + _HEIGHT // 2, b.x, b.y + _HEIGHT // 2
        middle = (x1 + x2) // 2
        kind = "edge live" if live else "edge"
        parts.append(f'<path class="{kind}" d="M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"/>')
    for (column, name), box in places.items():
        version = by_name.get(name) if column == len(_COLUMNS) else None
        kind = "box bad" if bad[column, name] else "box live" if version is not None and version.live else "box"
        text = f"{name}  {version.state}" if version is not None else name[:_SHOWN]
        tip = f"{name}: {'; '.join(version.recalls) or version.state}" if version is not None else name
        parts.append(
            f'<g><title>{escape(tip)}</title><rect class="{kind}" x="{box.x + 1}" y="{box.y + 1}" '
            f'width="{_WIDTH - 2}" height="{_HEIGHT - 2}" rx="7"/><text x="{box.x + 11}" y="{box.y + 22}">'
            f"{escape(text)}</text></g>"
        )
    return "".join([*parts, "</svg>"])
