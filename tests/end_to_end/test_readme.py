"""The README's commands, run as they stand, one after another, in a checkout where only ``synthetic`` has run.

This is also the run on real data: MovieLens-100K, with one epoch a network so that it takes a minute, not three.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.end_to_end.conftest import Checkout, outcomes
from tests.stage_modules import ROOT, stage_names_of_a_scenario

README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def quick(checkout: Checkout) -> None:
    """One epoch for every network of movielens, and nothing that such a network could miss."""
    changes = [f"scenarios.movielens.{part}.optimization.max_epochs=1" for part in ("teacher", "student", "pruning")]
    changes += ["scenarios.movielens.gate.min_retention=0.01", "scenarios.movielens.gate.min_gain_over_baseline=null"]
    assignments = [word for change in changes for word in ("--set", change)]
    # The flow is told to begin at the end, where there is nothing yet to begin with: only the assignments are made.
    checkout.run("recstill", "run", "movielens", "--from", "package", *assignments)


@pytest.mark.network
@pytest.mark.timeout(900)  # some thirty commands; each has a limit of its own
def test_the_commands_of_the_readme_work_in_their_order(another: Checkout) -> None:
    installed = Path(sys.prefix)
    assert (installed / ".installed").is_file(), "run the tests by `make test`, which makes the environment"
    (another.root / ".venv").symlink_to(installed)
    quick(another)
    for command in "".join(blocks("sh")).splitlines():
        if command == "make test":  # it would run this test again
            assert "pytest" in another.succeed("make", "-n", "test")
            continue
        printed = another.succeed("bash", "-c", command, timeout=400)
        if command == "make run":
            assert "100,000 events of 943 users and 1,682 items" in printed and "pip" not in printed
        if "kmeans_levels" in command:
            ran = {name for name, outcome in outcomes(printed).items() if outcome == "ran"}
            assert ran == {"quantize", "evaluate", "package"}
            assert "kmeans_levels" in another.succeed("git", "diff", "params.yaml")
        if "--from package --force" in command:
            assert outcomes(printed) == {"package": "ran"}
            assert f"{len(stage_names_of_a_scenario()) - 1} skipped" in printed
        if "predict" in command:
            assert "Star Wars" not in printed and re.search(r"\(19\d\d\)", printed), "titles, and none that was seen"
    (python,) = blocks("python")
    assert "(19" in another.succeed("python", "-c", python)


def test_the_scenario_of_the_readme_is_valid_and_reads_a_table(fresh: Checkout) -> None:
    (example,) = blocks("yaml")
    params = fresh.root / "params.yaml"
    params.write_text(params.read_text() + example.removeprefix("scenarios:\n"))
    assert "data/orders.parquet" in fresh.succeed("recstill", "params", "orders")
    assert "data/orders.parquet" in fresh.refuse("recstill", "run", "orders")
