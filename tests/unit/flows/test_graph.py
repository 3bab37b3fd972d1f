from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from components.errors import RecstillError
from flows.graph import Stage, StageError, pending, reproduce, scenario_stages
from tests.stage_modules import ROOT, stage_names_of_a_scenario

# Two branches that join: what a flow has to get right, in a few lines of shell.
GRAPH = {
    "stages": {
        "left": {"cmd": "echo left > left", "deps": ["source"], "outs": ["left"], "desc": "the left branch"},
        "right": {"cmd": "echo right > right", "deps": ["source"], "outs": ["right"]},
        "join": {"cmd": "cat left right > join", "deps": ["left", "right"], "outs": ["join"]},
    }
}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose stages carry a scenario in their address, as ours do; the current folder, as DVC needs it."""
    monkeypatch.chdir(tmp_path)
    document = {"stages": {name: {"foreach": ["one"], "do": body} for name, body in GRAPH["stages"].items()}}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    (tmp_path / "source").write_text("data")
    for command in (["git", "init", "-q"], [str(Path(sys.executable).parent / "dvc"), "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    return tmp_path


def test_every_stage_of_dvc_yaml_is_there_after_what_it_reads() -> None:
    stages = scenario_stages(ROOT, "synthetic")
    assert [stage.name for stage in stages] == stage_names_of_a_scenario()
    require_order(stages)


def test_a_pair_has_the_stages_of_both_scenarios_before_its_own() -> None:
    pair = yaml.safe_load((ROOT / "params.yaml").read_text())["two_stage"]["feed"]
    stages = scenario_stages(ROOT, "feed")
    require_order(stages)
    assert stages[-1].address == "bind@feed"
    both = [stage.address for name in ("retrieval", "ranking") for stage in scenario_stages(ROOT, pair[name])]
    assert sorted(stage.address for stage in stages[:-1]) == sorted(both)


def test_params_that_bind_no_scenarios_together_need_not_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    scenarios = yaml.safe_load((ROOT / "params.yaml").read_text())["scenarios"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"scenarios": {"mine": scenarios["synthetic"]}}))
    for command in (["git", "init", "-q"], [str(Path(sys.executable).parent / "dvc"), "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    assert [stage.name for stage in scenario_stages(tmp_path, "mine")] == stage_names_of_a_scenario()


def require_order(stages: list[Stage]) -> None:
    seen: set[str] = set()
    for stage in stages:
        assert set(stage.upstream) <= seen
        seen.add(stage.address)


def test_an_unknown_scenario_is_refused_with_the_nearest(repository: Path) -> None:
    with pytest.raises(RecstillError, match="unknown scenario 'on'; the nearest known one is 'one'"):
        scenario_stages(repository, "on")


def test_a_stage_runs_then_is_cached_then_runs_when_its_input_changes(repository: Path) -> None:
    stages = scenario_stages(repository, "one")
    assert set(pending(repository, stages)) == {"left@one", "right@one", "join@one"}
    for stage in stages:
        assert reproduce(repository, stage.address)[0] == "cached", "a plain shell stage leaves no note of having run"
    assert (repository / "join").read_text() == "left\nright\n"
    assert pending(repository, stages) == {}
    (repository / "source").write_text("other data")
    assert {address: reasons[0] for address, reasons in pending(repository, stages).items()} == {
        "left@one": "source modified",
        "right@one": "source modified",
        "join@one": "left@one and right@one has to run",
    }


def test_stages_at_once_give_the_lock_that_dvc_gives_alone(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    alone = tmp_path_factory.mktemp("alone")
    shutil.copytree(repository, alone, dirs_exist_ok=True)
    subprocess.run([str(Path(sys.executable).parent / "dvc"), "repro", "-q"], cwd=alone, check=True)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda address: reproduce(repository, address), ["left@one", "right@one"]))
    reproduce(repository, "join@one")
    assert yaml.safe_load((repository / "dvc.lock").read_text()) == yaml.safe_load((alone / "dvc.lock").read_text())


def test_a_failing_command_is_a_stage_error_and_a_missing_input_an_error_with_its_name(repository: Path) -> None:
    (repository / "source").unlink()
    with pytest.raises(RecstillError, match="source"):
        reproduce(repository, "left@one")
    (repository / "source").write_text("data")
    text = (repository / "dvc.yaml").read_text()
    (repository / "dvc.yaml").write_text(text.replace("echo left > left", "exit 3"))
    with pytest.raises(StageError, match="exit 3"):
        reproduce(repository, "left@one")
    assert not (repository / "left").exists()


def test_what_is_pending_is_told_in_words(repository: Path) -> None:
    stages = scenario_stages(repository, "one")
    reasons = pending(repository, stages)
    assert set(reasons) == {stage.address for stage in stages}
    assert all(phrases and all(phrases) for phrases in reasons.values())
