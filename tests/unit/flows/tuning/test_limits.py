from __future__ import annotations

import re

import pytest

from components.errors import SettingsError
from components.evaluation.selection import LINEAGE_BYTES
from components.settings.scenario import Scenario
from flows.params import read_params
from flows.tune import scenario_of
from flows.tuning.limits import limits_of, parsed_bytes, parsed_milliseconds, parsed_seconds, parsed_share
from tests.stage_modules import ROOT


@pytest.fixture(scope="module")
def movielens() -> Scenario:
    return read_params(ROOT).scenarios["movielens"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("200kB", 200_000), ("1.5 MB", 1_500_000), ("64KiB", 65_536), ("40000", 40_000), ("12 b", 12), (".5kb", 500)],
)
def test_sizes(text: str, size: int) -> None:
    assert parsed_bytes(text) == size


def test_times_and_shares() -> None:
    assert parsed_milliseconds("1ms") == 1 and parsed_milliseconds("0.5 s") == 500
    assert parsed_milliseconds("250us") == pytest.approx(0.25) and parsed_milliseconds("250µs") == pytest.approx(0.25)
    assert parsed_share("0.98") == 0.98 and parsed_share("98%") == 0.98
    assert parsed_seconds("30m") == 1800 and parsed_seconds("6h") == 21_600


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("max_bytes", "200 apples"),
        ("max_bytes", "1ms"),
        ("max_bytes", "-5kB"),
        ("max_bytes", "0"),
        ("max_bytes", "0.2B"),
        ("max_bytes", ""),
        ("max_bytes", "9" * 400),
        ("max_p95", "9" * 400 + "ms"),
        ("max_p95", "1"),
        ("max_p95", "200kB"),
        ("max_p95", "0ms"),
        ("min_retention", "98"),
        ("min_retention", "high"),
        ("min_retention", "0"),
    ],
)
def test_a_quantity_that_cannot_be_is_refused_by_its_option(movielens: Scenario, option: str, text: str) -> None:
    given = {"max_bytes": None, "max_p95": None, "min_retention": None, option: text}
    with pytest.raises(SettingsError) as refusal:
        limits_of(movielens, **given)
    assert f"--{option.replace('_', '-')}" in str(refusal.value) and repr(text) in str(refusal.value)


def test_what_is_given_stands_in_the_place_of_the_scenarios_own_and_the_rest_stays(movielens: Scenario) -> None:
    own, nothing = limits_of(movielens, None, None, None)
    assert own.budget == movielens.budget and own.gate == movielens.gate and nothing == {}
    asked = limits_of(movielens, "40kB", None, "0.9")
    assert asked.limits.budget.max_bytes == 40_000 and asked.limits.budget.max_bytes_ratio is None
    assert asked.limits.budget.max_latency_ratio == movielens.budget.max_latency_ratio
    assert asked.limits.gate.min_retention == 0.9
    assert asked.given == {"budget.max_bytes": 40_000, "gate.min_retention": 0.9}


def test_a_scenario_that_does_not_exist_is_named_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"'movielnes'.*'movielens'"):
        scenario_of(ROOT, "movielnes")


@pytest.mark.parametrize("page", ["README.md", "docs/tuning.md"])
def test_the_budget_of_the_example_does_not_rule_out_what_ships(page: str) -> None:
    ships = re.search(r"ships\*\*.* \| ([\d,]+) \| [\d.]+ \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert ships is not None
    budgets = re.findall(r"^\$ recstill tune movielens --max-bytes (\S+)", (ROOT / page).read_text(), re.MULTILINE)
    assert budgets and all(parsed_bytes(budget) >= int(ships[1].replace(",", "")) + LINEAGE_BYTES for budget in budgets)
