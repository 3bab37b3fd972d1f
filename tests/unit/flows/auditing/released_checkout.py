"""A small checkout whose run is registered as version 1."""

from __future__ import annotations

from pathlib import Path

from flows.finalizing import FinishedRun, Registered, finalize
from tests.unit.flows.small_checkout import SCENARIO, VERDICT, small_checkout

KEY = "0123456789abcdef" * 4


def released_checkout(folder: Path, package: Path) -> tuple[Path, Registered]:
    """The checkout, and what was registered."""
    root = small_checkout(folder, package)
    return root, finalize(FinishedRun(root, root, SCENARIO, KEY, VERDICT), lambda _: None)
