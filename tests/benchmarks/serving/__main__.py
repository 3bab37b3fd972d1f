"""What serving costs, as ratios to torch eager in fp32 that are measured in the same run: ``make bench-serving``."""

from __future__ import annotations

from tests.benchmarks import large_catalogue
from tests.benchmarks.serving import small_network

PARTS = (small_network.measured, lambda: large_catalogue.measured(1_000_000))


def main() -> None:
    figures = [figure for part in PARTS for figure in part()]
    print()
    print("\n".join(str(figure) for figure in figures))


if __name__ == "__main__":
    main()
