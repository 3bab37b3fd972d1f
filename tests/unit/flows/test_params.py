from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from components.errors import SettingsError
from flows.params import assign, described, read_params
from tests.stage_modules import ROOT


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    return tmp_path


def test_the_shipped_params_are_valid() -> None:
    assert {"movielens", "synthetic"} <= set(read_params(ROOT).scenarios)


def test_an_assignment_changes_the_value_and_keeps_the_comments(checkout: Path) -> None:
    before = (checkout / "params.yaml").read_text().splitlines()
    assert assign(checkout, ["scenarios.synthetic.student.network.dim=24"]) == [
        "scenarios.synthetic.student.network.dim 16 -> 24"
    ]
    after = (checkout / "params.yaml").read_text()
    assert read_params(checkout).scenarios["synthetic"].student.network.dim == 24
    assert [line for line in before if line.lstrip().startswith("#")] == [
        line for line in after.splitlines() if line.lstrip().startswith("#")
    ]


def test_the_same_value_again_leaves_the_file_untouched(checkout: Path) -> None:
    before = (checkout / "params.yaml").stat().st_mtime_ns
    assert assign(checkout, ["scenarios.synthetic.seed=0"]) == []
    assert (checkout / "params.yaml").stat().st_mtime_ns == before


def test_a_key_that_the_file_leaves_to_its_default_can_be_set(checkout: Path) -> None:
    assign(checkout, ["scenarios.synthetic.budget.max_p95_ms=2.5"])
    assert read_params(checkout).scenarios["synthetic"].budget.max_p95_ms == 2.5


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("scenarios.synthetic.budget.max_p95=2", ["max_p95", "'max_p95_ms'"]),
        ("scenarios.synthetic.seed=-1", ["seed", "greater than or equal to 0"]),
        ("scenario.synthetic.seed=1", ["'scenario'", "'scenarios'"]),
        ("scenarios.synthetic.seed.deep=1", ["scenarios.synthetic.seed", "value"]),
        ("scenarios.synthetic.trainer.max_epochs=3", ["max_epochs", "optimization"]),
        ("scenarios.synthetic.student.network.heads=3", ["dim (16)", "heads (3)"]),
        ("no value", ["KEY=VALUE"]),
        ("scenarios.synthetic.seed=[1", ["YAML"]),
    ],
)
def test_a_wrong_assignment_is_refused_and_changes_nothing(checkout: Path, assignment: str, words: list[str]) -> None:
    before = (checkout / "params.yaml").read_bytes()
    with pytest.raises(SettingsError) as refusal:
        assign(checkout, ["scenarios.synthetic.seed=5", assignment])
    assert all(word in str(refusal.value) for word in words), refusal.value
    assert (checkout / "params.yaml").read_bytes() == before


def test_every_parameter_has_a_meaning() -> None:
    parameters = described(None, None)
    assert len(parameters) > 60
    assert [parameter.key for parameter in parameters if not parameter.meaning] == []


def test_the_values_of_a_scenario_are_shown(checkout: Path) -> None:
    values = {parameter.key: parameter.value for parameter in described(read_params(checkout), "synthetic")}
    assert values["source.kind"] == "synthetic" and values["student.network.dim"] == "16"
    assert not any("movielens-100k" in key for key in values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scenarios: [", ["not valid YAML"]),
        ("scenarios: 3", ["scenarios"]),
        ("{}", ["scenarios"]),
        ("scenarios: {}", ["at least one scenario"]),
    ],
)
def test_a_params_file_of_another_form_is_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(SettingsError) as refusal:
        read_params(tmp_path)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_fine_tuning_for_a_form_that_is_not_made_is_refused(checkout: Path) -> None:
    aware = "scenarios.synthetic.pruning.quantization_aware="
    assign(checkout, [aware + "{form: int4_table4, table_block: 16}"])
    for value, words in (
        ("{form: int4_table2, table_block: 16}", ["int4_table2", "not among quantization.variants"]),
        ("{form: int4_table4}", ["table_block' is 32", "quantization.table_block is 16"]),
        ("{form: fp32, table_block: 16}", ["form", "int4_table4"]),
    ):
        with pytest.raises(SettingsError) as refused:
            assign(checkout, [aware + value])
        assert all(word in str(refused.value) for word in words)
