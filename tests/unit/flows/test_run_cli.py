"""`recstill run` of a pair of scenarios: it has no entry of its own below ``scenarios``."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from components.errors import RecstillError, SettingsError
from flows import cli
from flows.graph import Stage
from flows.labelling import build
from flows.params import read_params

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_a_pair_is_run_with_the_stages_of_both_its_scenarios(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, set[str]]] = []

    def compressed(root: Path, scenario: str, stages: list[Stage], chosen: list[Stage], force: bool) -> list[object]:
        ran.append((scenario, {stage.scenario for stage in chosen}))
        raise typer.Exit(7)  # what follows prints the report of a run

    monkeypatch.setattr(cli, "_compressed", compressed)
    done = CliRunner().invoke(cli.app, ["run", "feed", "--force"])

    assert (done.exit_code, ran) == (7, [("feed", {"social", "interest", "feed"})]), done.output


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--to", "train_baseline"], ["ingest", "prepare", "train_baseline"]),
        (["--to", "distill"], ["ingest", "prepare", "train_teacher", "soft_labels", "distill"]),
        (["--from", "distill", "--to", "prune"], ["distill", "prune"]),
    ],
)
def test_a_run_ends_with_the_stage_that_it_is_told_and_takes_only_what_leads_there(
    monkeypatch: pytest.MonkeyPatch, options: list[str], expected: list[str]
) -> None:
    ran: list[str] = []

    def compressed(root: Path, scenario: str, stages: list[Stage], chosen: list[Stage], force: bool) -> list[object]:
        ran.extend(stage.name for stage in chosen)
        raise typer.Exit(7)

    monkeypatch.setattr(cli, "_compressed", compressed)
    CliRunner().invoke(cli.app, ["run", "synthetic", "--force", *options])

    assert ran == expected


def test_a_pair_is_no_scenario_and_the_error_names_its_two() -> None:
    params = read_params(ROOT)

    with pytest.raises(SettingsError, match=r"'feed' is no scenario: it answers with social and interest"):
        params.scenario("feed")
    with pytest.raises(SettingsError, match=r"unknown scenario 'interst'; the nearest known one is 'interest'"):
        params.scenario("interst")
    assert params.scenario("interest") is params.scenarios["interest"]
    with pytest.raises(
        RecstillError, match=r"'feed' has no soft labels of its own: it answers with interest and social"
    ):
        build(ROOT, "feed")
