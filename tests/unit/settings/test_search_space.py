from __future__ import annotations

from typing import Any, get_args

import pytest
import yaml

from components.errors import SettingsError
from components.settings.base import validated
from components.settings.network import NetworkSettings
from components.settings.scenario import Params, Scenario
from components.settings.search_space import check_forms, space_of, value_at, with_recipe
from components.settings.tune import Choices, Range
from tests.stage_modules import ROOT

SHIPPED: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())["scenarios"]


def scenario(name: str = "synthetic", **tune: Any) -> Scenario:
    document = {**SHIPPED[name], "tune": tune}
    return validated(Params, {"scenarios": {name: document}}, "").scenarios[name]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_value_of_the_default_space_can_be_trained_and_the_own_recipe_is_in_it(name: str) -> None:
    shipped = scenario(name)
    space = space_of(shipped)
    assert {key.partition(".")[0] for key in space} >= {"student", "distillation", "pruning"}
    for key, searched in space.items():
        assert searched.holds(value_at(shipped, key)), key
        for candidate in searched.candidates():
            changed = with_recipe(shipped, {key: candidate})
            assert value_at(changed, key) == candidate
    assert value_at(shipped, "student.network") == value_at(scenario(name), "student.network"), "left as it was"


def test_losses_that_the_cache_cannot_teach_are_not_tried() -> None:
    kinds = {str(choice) for choice in space_of(scenario("movielens"))["distillation"].candidates()}
    assert any("correlation" in kind for kind in kinds) and not any("hint" in kind for kind in kinds)
    assert all("cross_entropy'" in str(choice) or "lambda" in str(choice) for choice in kinds)
    sets = {str(choice) for choice in space_of(scenario("citeulike"))["distillation"].candidates()}
    assert any("rejuvenated" in kind for kind in sets) and not any("correlation" in kind for kind in sets)
    binary = space_of(scenario("binary"))["distillation"].candidates()
    assert not any("'cross_entropy'" in str(choice) for choice in binary)


def test_a_form_that_shows_its_cost_only_when_it_is_trained_is_not_tried() -> None:
    check_forms(scenario(), "scenarios.synthetic")
    searched = with_recipe(scenario(), {"quantization.variants": ["fp32", "int8_index"]})
    with pytest.raises(SettingsError, match=r"scenarios.synthetic.quantization.variants' has int8_index"):
        check_forms(searched, "scenarios.synthetic")


def test_the_scenario_overrules_fixes_and_narrows_the_space() -> None:
    space = space_of(
        scenario(
            space={
                "student.network.dim": {"choices": [8, 24]},
                "distillation.temperature": {"low": 1.0, "high": 4.0},
                "pruning.ffn_ratio": None,
            }
        )
    )
    assert space["student.network.dim"] == Choices(choices=(8, 24))
    assert "distillation" not in space, "a part of the section is drawn, so the whole of it is not"
    assert "pruning.ffn_ratio" not in space and "student.network.blocks" in space
    alone = space_of(scenario(only=True, space={"student.network.dim": {"choices": [8, 24]}}))
    assert list(alone) == ["student.network.dim"]


SHARE = "pruning.multiply_adds_share"


def with_share(name: str, **tune: Any) -> Scenario:
    pruning = {key: value for key, value in SHIPPED[name]["pruning"].items() if not key.endswith("ratio")}
    document = {**SHIPPED[name], "pruning": {**pruning, "multiply_adds_share": 0.5}, "tune": tune}
    return validated(Params, {"scenarios": {name: document}}, "").scenarios[name]


@pytest.mark.parametrize("name", ["movielens", "binary", "citeulike"])
def test_a_scenario_that_prunes_to_a_share_of_the_multiply_adds_is_searched_over_shares(name: str) -> None:
    shared = with_share(name)
    space = space_of(shared)
    assert space[SHARE] == Choices(choices=(0.5, 0.75))
    assert not any(key.endswith("_ratio") for key in space)
    changed = with_recipe(shared, {key: searched.candidates()[-1] for key, searched in space.items()})
    assert value_at(changed, SHARE) == 0.75


def test_a_share_that_the_space_names_takes_the_place_of_ratios() -> None:
    document = {key: value for key, value in SHIPPED["synthetic"].items() if key != "pruning"}
    document |= {"pruning": {"importance": "taylor"}, "tune": {"space": {SHARE: {"choices": [0.4, 0.6]}}}}
    space = space_of(validated(Params, {"scenarios": {"tiny": document}}, "").scenarios["tiny"])
    assert space[SHARE] == Choices(choices=(0.4, 0.6)) and "pruning.ffn_ratio" not in space


def test_a_parameter_that_stays_what_it_is_is_not_tried_at_its_default() -> None:
    assert "pruning.ffn_ratio" not in space_of(with_share("movielens", space={"pruning.ffn_ratio": None}))


@pytest.mark.parametrize(
    ("key", "searched", "words"),
    [
        ("student.network.dimm", {"choices": [8]}, ["tune.space", "dimm", "'dim'"]),
        ("student.network.dim", {"choices": [7]}, ["student.network.dim", "7", "heads"]),
        ("student.network.dim", {"low": 8, "high": 4}, ["low (8)", "high (4)"]),
        ("student.optimization.learning_rate", {"low": 0.0, "high": 1.0, "log": True}, ["log"]),
        ("student.network.dim", {"low": 8, "high": 16, "step": 12}, ["step (12)"]),
        ("student.network.dim", {"choice": [8]}, ["choice", "tune.space"]),
        ("student.network.dim", {"choices": []}, ["choices"]),
        ("student.network.dim", {"choices": [8, 8]}, ["twice"]),
        ("teacher.network.dim", {"choices": [8]}, ["teacher.network.dim", "one teacher"]),
        ("seed", {"choices": [1, 2]}, ["'seed'", "no part of a recipe"]),
        ("quantization.variants", {"choices": [["fp32"]]}, ["quantization.variants", "every trial"]),
        ("pruning.ffn_ratio", {"low": 0.0, "high": 1.0}, ["pruning.ffn_ratio", "less than 1"]),
        ("distillation", {"choices": [{"losses": [{"kind": "hint"}, {"kind": "cross_entropy"}]}]}, ["hidden"]),
        ("student.nothing.at", None, ["student.nothing.at"]),
        (
            "pruning.quantization_aware",
            {"choices": [None, {"form": "int4_table2", "table_block": 16}]},
            ["tune.space", "int4_table2", "not among quantization.variants"],
        ),
    ],
)
def test_a_space_that_cannot_be_tried_is_refused_when_params_are_read(
    key: str, searched: Any, words: list[str]
) -> None:
    with pytest.raises(SettingsError) as refusal:
        scenario(space={key: searched})
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_a_key_and_a_part_of_it_cannot_both_be_drawn() -> None:
    both = {"distillation": {"choices": [{}]}, "distillation.temperature": {"low": 1.0, "high": 2.0}}
    with pytest.raises(SettingsError, match="a part of the other"):
        scenario(space=both)


@pytest.mark.parametrize(
    ("searched", "inside", "outside"),
    [
        (Range(low=1, high=3), [1, 2, 3], [0, 4, 2.0, True, "2"]),
        (Range(low=0.0, high=0.75, step=0.25), [0.0, 0.5, 0.75], [0.3, 1.0]),
        (Range(low=0.001, high=0.1, log=True), [0.001, 0.02], [0.0, 1]),
        (Choices(choices=([16], [32, 16])), [[16], [32, 16]], [16, [32]]),
    ],
)
def test_what_a_parameter_may_be(searched: Choices | Range, inside: list[Any], outside: list[Any]) -> None:
    assert all(searched.holds(value) for value in inside)
    assert not any(searched.holds(value) for value in outside)


def test_no_stage_depends_on_what_is_searched() -> None:
    assert "scenarios.${key}.tune" not in (ROOT / "dvc.yaml").read_text()


def test_the_documentation_names_every_kind_of_network() -> None:
    text = (ROOT / "docs/tuning.md").read_text()
    kinds = [get_args(network.model_fields["kind"].annotation)[0] for network in get_args(NetworkSettings)]
    assert [kind for kind in kinds if f"`{kind}`" not in text] == []
