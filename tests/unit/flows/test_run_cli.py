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
        (["--from", "train_baseline", "--to", "train_baseline"], ["train_baseline"]),
        (
            ["--to", "train_baseline", "--to", "soft_labels"],
            ["ingest", "prepare", "train_baseline", "train_teacher", "soft_labels"],
        ),
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

    assert sorted(ran) == sorted(expected)


@pytest.mark.parametrize(
    ("options", "told", "shown"),
    [
        (
            ["--to", "prepare", "--to", "distill"],
            "synthetic: every stage up to prepare and distill is up to date (5",
            0,
        ),
        ([], "synthetic: every stage is up to date (10 cached)", 1),
    ],
)
def test_the_results_are_shown_when_the_run_leads_to_them(
    monkeypatch: pytest.MonkeyPatch, options: list[str], told: str, shown: int
) -> None:
    results: list[Path] = []
    monkeypatch.setattr("flows.graph.pending", lambda root, stages: {})
    monkeypatch.setattr("flows.attesting.attest_run", lambda *_: None)
    monkeypatch.setattr("flows.console.Console.results", lambda console, folder: results.append(folder))
    done = CliRunner().invoke(cli.app, ["run", "synthetic", *options])

    assert told in done.output and len(results) == shown
    assert ("the rest is left as it is: `recstill run synthetic` goes on" in done.output) is not bool(shown)


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
