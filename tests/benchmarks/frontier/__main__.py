"""Quality against bytes and latency on one data set: ``make bench-frontier DATA=citeulike``.

``SEEDS=0`` takes one seed, ``POINTS=d20,d32`` some of the points (figures are then not printed). Runs and results are
kept in ``.recstill/benchmarks/frontier``; an interrupted call goes on where it stopped. Quality is the mean over the
seeds with a 95 % interval by bootstrap over the test users. With all points and at least three seeds the results are
also written to ``docs/frontier/<data>.json``, from which ``make frontier-page`` writes the page.
"""

from __future__ import annotations

import os

from tests.benchmarks.frontier import beauty, citeulike, ml_1m
from tests.benchmarks.frontier.points import ROOT, judged, points_of, told
from tests.benchmarks.frontier.stored import rows_of, write_stored

FRONTIERS = {module.FRONTIER.data: module.FRONTIER for module in (citeulike, ml_1m, beauty)}
FOLDER = ROOT / ".recstill" / "benchmarks" / "frontier"
SEEDS = tuple(int(seed) for seed in os.environ.get("SEEDS", "0,1,2").split(","))

LEAST_SEEDS = 3


def main() -> None:
    name = os.environ.get("DATA", "citeulike")
    if name not in FRONTIERS:
        raise SystemExit(f"DATA: there is no frontier of {name!r}; there are {', '.join(FRONTIERS)}")
    FOLDER.mkdir(parents=True, exist_ok=True)
    frontier = FRONTIERS[name]
    points = points_of(frontier, [point for point in os.environ.get("POINTS", "").split(",") if point])
    found = [judged(frontier, point, seed, FOLDER) for seed in SEEDS for point in points]
    print(f"\n{name}, seeds {', '.join(map(str, SEEDS))}", told(found), sep="\n")
    if len(points) < len(frontier.points):
        return
    if len(set(SEEDS)) < LEAST_SEEDS:
        print(f"\ndocs/frontier/{name}.json stays as it is: it takes {LEAST_SEEDS} seeds")
    else:
        print(f"\nkept in {write_stored(rows_of(frontier, found)).relative_to(ROOT)}")
    figures = frontier.figures(found)
    print("", *(figure.told() for figure in figures), "", *figures, sep="\n")


if __name__ == "__main__":
    main()
