"""Worktrees of scheduled runs: real git, real DVC, and a checkout that stays as its user left it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.errors import SettingsError
from flows.repository import GitError
from flows.worktrees import (
    BusyError,
    bring_source,
    clean_commit,
    open_worktree,
    scenario_lock,
    sort_lock,
    start_from,
    withdraw_source,
    working_in,
)
from tests.stage_modules import ROOT
from tests.unit.flows.small_checkout import git, small_checkout, with_remote


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose one scenario has run. Read only."""
    return small_checkout(tmp_path_factory.mktemp("worktrees"))


@pytest.fixture
def checkout(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to change at will."""
    return Path(shutil.copytree(made, tmp_path / "checkout", symlinks=True))


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    (checkout / "notes.md").write_text("somebody's own")
    assert (checkout / "dvc.lock").exists()
    assert clean_commit(checkout) == git(checkout, "rev-parse", "HEAD")


@pytest.mark.parametrize("name", ["params.yaml", "source", "components/new.py", "flows/new.py", "requirements.lock"])
def test_a_dirty_tree_is_refused_by_name(checkout: Path, name: str) -> None:
    (checkout / name).parent.mkdir(exist_ok=True)
    (checkout / name).write_text("changed\n")
    with pytest.raises(GitError, match=f"no commit: {name}"):
        clean_commit(checkout)


def test_no_repository_and_no_commit_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(GitError, match="no repository"):
        clean_commit(tmp_path)
    git(tmp_path, "init", "-q")
    with pytest.raises(GitError, match="no commit yet"):
        clean_commit(tmp_path)


def test_a_commit_that_no_remote_has_is_refused(checkout: Path) -> None:
    with_remote(checkout, pushed=False)
    with pytest.raises(GitError, match="on no remote"):
        clean_commit(checkout)
    git(checkout, "push", "-q", "origin", "main")
    assert clean_commit(checkout)


def test_a_worktree_leaves_the_checkout_alone_and_shares_its_cache(checkout: Path) -> None:
    def state() -> list[str]:
        files = sorted(path for path in checkout.rglob("*") if path.is_file() and not _own(path, checkout))
        return [f"{path} {path.stat().st_mtime_ns}" for path in files] + [git(checkout, "status", "--porcelain")]

    before = state()
    tree = open_worktree(checkout, "tiny", clean_commit(checkout))
    assert tree.is_relative_to(checkout / ".recstill" / "worktrees")
    printed = _dvc(tree, "repro")
    assert "is cached - skipping run" in printed and (tree / "artifacts/tiny/events.parquet").exists()
    assert state() == before
    # The checkout's own DVC does not take the worktree's stages for its own.
    assert "up to date" in _dvc(checkout, "status")


def test_a_leftover_is_taken_up_again_clean_but_with_its_ignored_files(checkout: Path) -> None:
    commit = clean_commit(checkout)
    tree = open_worktree(checkout, "tiny", commit)
    (tree / "params.yaml").write_text("half-written")
    (tree / "stray").write_text("new")
    (tree / ".recstill" / "training").mkdir(parents=True)
    (tree / ".recstill" / "training" / "state").write_text("epoch 3")
    assert open_worktree(checkout, "tiny", commit) == tree
    assert git(tree, "status", "--porcelain") == ""
    assert (tree / ".recstill" / "training" / "state").read_text() == "epoch 3"


@pytest.mark.parametrize("damage", ["no .git", "forgotten by git", "locked index"])
def test_a_broken_leftover_is_replaced(checkout: Path, damage: str) -> None:
    commit = clean_commit(checkout)
    tree = open_worktree(checkout, "tiny", commit)
    if damage == "no .git":
        (tree / ".git").unlink()
    elif damage == "forgotten by git":
        shutil.rmtree(checkout / ".git" / "worktrees")
    else:
        Path(git(tree, "rev-parse", "--git-path", "index.lock")).touch()
    tree = open_worktree(checkout, "tiny", commit)
    assert git(tree, "rev-parse", "HEAD") == commit and git(tree, "status", "--porcelain") == ""


def test_worktrees_of_other_commits_go_and_those_of_other_scenarios_stay(checkout: Path) -> None:
    first = open_worktree(checkout, "tiny", clean_commit(checkout))
    other = open_worktree(checkout, "tiny-2", clean_commit(checkout))
    git(checkout, "commit", "-q", "--allow-empty", "-m", "another")
    second = open_worktree(checkout, "tiny", clean_commit(checkout))
    assert not first.exists() and second.exists() and other.exists()
    assert git(checkout, "worktree", "list").count("(detached HEAD)") == 2


def test_a_lock_of_an_earlier_version_is_the_starting_point(checkout: Path) -> None:
    commit = clean_commit(checkout)
    tree = open_worktree(checkout, "tiny", commit)
    assert not start_from(checkout, tree, commit) and not (tree / "dvc.lock").exists()
    assert not start_from(checkout, tree, "0" * 40)
    git(checkout, "add", "dvc.lock")
    git(checkout, "commit", "-q", "-m", "a run")
    assert start_from(checkout, tree, git(checkout, "rev-parse", "HEAD"))
    assert (tree / "dvc.lock").read_bytes() == (checkout / "dvc.lock").read_bytes()


def test_files_of_a_source_that_are_in_no_commit_are_seen_and_taken_away_again(checkout: Path) -> None:
    tree = open_worktree(checkout, "tiny", clean_commit(checkout))
    (checkout / "data" / "deep").mkdir(parents=True)
    for name in ("one.csv", "deep/two.csv"):
        (checkout / "data" / name).write_text(name)
    bring_source(checkout, tree, "data")
    assert (tree / "data/one.csv").read_text() == "one.csv" and (tree / "data/deep/two.csv").exists()
    (checkout / "data" / "one.csv").unlink()
    bring_source(checkout, tree, "data")
    assert [path.name for path in (tree / "data").rglob("*.csv")] == ["two.csv"]
    withdraw_source(checkout, tree, "data")
    assert git(tree, "status", "--porcelain") == "" and (checkout / "data/deep/two.csv").exists()
    bring_source(checkout, tree, "source")  # a tracked file is that of the commit
    assert not (tree / "source").is_symlink()
    for elsewhere in ("s3://bucket/prefix", "/somewhere/else", "../beside"):
        bring_source(checkout, tree, elsewhere)


def test_within_the_block_the_worktree_is_here_and_the_store_is_the_checkouts(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECSTILL_STORE", raising=False)
    tree = open_worktree(checkout, "tiny", clean_commit(checkout))
    before, path = Path.cwd(), os.environ["PATH"]
    with working_in(checkout, tree):
        assert Path.cwd() == tree and os.environ["RECSTILL_STORE"] == f"file://{checkout}/.recstill/store"
    assert Path.cwd() == before and "RECSTILL_STORE" not in os.environ and os.environ["PATH"] == path
    monkeypatch.setenv("RECSTILL_STORE", "file:///elsewhere")
    with working_in(checkout, tree):
        assert os.environ["RECSTILL_STORE"] == "file:///elsewhere"


def test_the_order_in_which_stages_ended_does_not_show_in_the_lock(tmp_path: Path) -> None:
    one, other = "  b@x:\n    cmd: b\n    outs:\n    - path: p\n", "  a@x:\n    cmd: a\n"
    (tmp_path / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n{one}{other}")
    sort_lock(tmp_path)
    assert (tmp_path / "dvc.lock").read_text() == f"schema: '2.0'\nstages:\n{other}{one}"


def test_one_retraining_at_a_time_and_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from flows.worktrees import scenario_lock\n"
        f"with scenario_lock(Path({str(tmp_path)!r}), 'tiny'): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError, match=f"at work already.*{holder.pid}"), scenario_lock(tmp_path, "tiny"):
            pass
        with scenario_lock(tmp_path, "other"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            with scenario_lock(tmp_path, "tiny"):
                return
        except BusyError:
            time.sleep(0.05)
    raise AssertionError("the lock has outlived its process")


def test_a_lock_that_is_handed_on_is_had_once(tmp_path: Path) -> None:
    with scenario_lock(tmp_path, "tiny", handed_on=True):
        with scenario_lock(tmp_path, "tiny"):
            pass
        with pytest.raises(BusyError), scenario_lock(tmp_path, "tiny"):
            pass
    with scenario_lock(tmp_path, "tiny"):
        pass


def _own(path: Path, checkout: Path) -> bool:
    below = path.relative_to(checkout).parts
    return below[0] in (".git", ".recstill") or below[:2] in ((".dvc", "tmp"), (".dvc", "cache"))


def _dvc(root: Path, *command: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "dvc"), *command], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("name", ["", "x/../../../dvc", "../x", "a b"])
def test_a_name_that_is_a_path_touches_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "dvc.lock").write_text("mine")
    with pytest.raises(SettingsError, match="unknown scenario"), scenario_lock(tmp_path, name):
        pytest.fail("it was locked")
    assert [path.name for path in tmp_path.iterdir()] == ["dvc.lock"] and (tmp_path / "dvc.lock").read_text() == "mine"
