from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from flows.auditing.lock_history import LockHistory


def git(root: Path, *command: str, day: int = 1) -> str:
    when = {f"GIT_{role}_DATE": f"2026-05-{day:02d}T12:00:00+0000" for role in ("AUTHOR", "COMMITTER")}
    done = subprocess.run(
        ["git", "-c", "user.name=Tess Ter", "-c", "user.email=tess@example.org", *command],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **when},
    )
    return done.stdout.strip()


def md5(letter: str) -> str:
    return letter * 31 + "a"


def write(root: Path, made: str, *, read: str = "0") -> None:
    deps = [{"path": "artifacts/tiny/dataset", "hash": "md5", "md5": md5(read), "size": 1}]
    outs = [{"path": "artifacts/tiny/student", "hash": "md5", "md5": md5(made), "size": 2}]
    stages = {"distill@tiny": {"cmd": "python x", "deps": deps, "outs": outs}}
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}, sort_keys=False))


def commit(root: Path, made: str, day: int, **more: str) -> str:
    write(root, made, **more)
    git(root, "add", "dvc.lock")
    git(root, "commit", "-q", "-m", f"a run that makes {made}", day=day)
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    (folder / ".gitignore").write_text("/trees/\n")
    git(folder, "add", ".gitignore")
    git(folder, "commit", "-q", "-m", "a checkout")
    return folder


def made(history: LockHistory) -> list[str]:
    return [run.outputs["artifacts/tiny/student"][0] for lock in history.locks for run in lock.stages]


def test_locks_of_branches_tags_history_and_work_trees_are_found_oldest_first(root: Path) -> None:
    first = commit(root, "1", 1)
    commit(root, "2", 2)
    git(root, "checkout", "-q", "-b", "side", first)
    tagged = commit(root, "3", 3)
    git(root, "tag", "-a", "-m", "a version", "tiny@v1.0.0")
    git(root, "checkout", "-q", "main")
    git(root, "branch", "-q", "-D", "side")
    git(root, "worktree", "add", "-q", "--detach", "trees/one", first)
    write(root / "trees" / "one", "4")
    write(root, "5")
    history = LockHistory.read(root)
    assert made(history)[:3] == ["1", "2", "3"]
    assert set(made(history)[3:]) == {"4", "5"}
    registered = history.locks[2]
    assert registered.versions == ["tiny@v1"]
    assert registered.committed is not None
    assert registered.committed.id == tagged
    assert registered.committed.who == "Tess Ter"
    assert registered.committed.at.startswith("2026-05-03")
    assert registered.committed.subject == "a run that makes 3"
    assert history.locks[0].refs == []
    assert history.locks[1].refs == ["refs/heads/main"]
    assert [lock.where for lock in history.locks[3:] if "5" in str(lock.stages[0].outputs)] == [[root]]
    assert not history.notes


def test_the_same_lock_again_is_one_with_the_commit_that_brought_it_first(root: Path) -> None:
    first = commit(root, "1", 1)
    commit(root, "2", 2)
    again = commit(root, "1", 3)
    history = LockHistory.read(root)
    assert made(history) == ["1", "2"]
    assert [one.id for one in history.locks[0].commits] == [first, again]
    assert history.locks[0].where == [root]


def test_a_merge_that_makes_a_lock_of_its_own_is_seen(root: Path) -> None:
    base = commit(root, "1", 1)
    commit(root, "2", 2)
    git(root, "checkout", "-q", "-b", "side", base)
    commit(root, "3", 3)
    git(root, "merge", "-q", "-s", "ours", "--no-commit", "main", day=4)
    write(root, "4")
    git(root, "add", "dvc.lock")
    git(root, "commit", "-q", "-m", "merged by hand", day=4)
    commit(root, "5", 5)
    assert made(LockHistory.read(root)) == ["1", "2", "3", "4", "5"]


def test_runs_are_found_by_what_they_read_or_made_and_only_matching_locks_are_parsed(root: Path) -> None:
    for day, one in enumerate("123", start=1):
        commit(root, one, day, read="7" if one == "2" else "8")
    history = LockHistory.read(root)
    assert [run.outputs for _, run in history.runs(md5("7"))] == [{"artifacts/tiny/student": md5("2")}]
    assert [lock.committed.at[:10] for lock, _ in history.runs(md5("8")) if lock.committed] == [
        "2026-05-01",
        "2026-05-03",
    ]
    assert list(history.runs("f" * 32)) == []


def test_locks_of_named_commits_are_had_although_no_ref_leads_there(root: Path) -> None:
    commit(root, "1", 1)
    lost = commit(root, "2", 2)
    git(root, "reset", "-q", "--hard", "HEAD~1")
    history = LockHistory.read(root)
    assert made(history) == ["1"]
    found = history.at([lost, "f" * 40])
    assert found[lost] is not None
    assert found["f" * 40] is None
    assert history.has_commits([lost, "f" * 40]) == {lost: True, "f" * 40: False}


def test_a_checkout_below_the_top_of_its_repository_has_its_own_lock(root: Path) -> None:
    below = root / "models"
    below.mkdir()
    commit(below, "1", 1)
    commit(root, "2", 2)
    assert made(LockHistory.read(below)) == ["1"]


def test_without_git_the_file_that_lies_there_counts(tmp_path: Path) -> None:
    write(tmp_path, "1")
    history = LockHistory.read(tmp_path)
    assert made(history) == ["1"]
    assert history.locks[0].commits == []
    assert history.has_commits(["f" * 40]) == {"f" * 40: False}


def test_a_repository_without_a_commit_is_read(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    write(tmp_path, "1")
    assert made(LockHistory.read(tmp_path)) == ["1"]


def test_a_shallow_clone_says_that_it_is_one(root: Path) -> None:
    commit(root, "1", 1)
    commit(root, "2", 2)
    git(root.parent, "clone", "-q", "--depth", "1", f"file://{root}", "shallow")
    history = LockHistory.read(root.parent / "shallow")
    assert made(history) == ["2"]
    assert any("shallow" in note for note in history.notes)


def test_lost_objects_are_told_and_the_rest_is_read(root: Path) -> None:
    commit(root, "1", 1)
    commit(root, "2", 2)
    blob = git(root, "rev-parse", "HEAD~1:dvc.lock")
    (root / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    history = LockHistory.read(root)
    assert made(history) == ["2"]
    assert any("not in this clone" in note for note in history.notes)


def test_a_lost_commit_is_told_and_the_tips_are_read(root: Path) -> None:
    lost = commit(root, "1", 1)
    commit(root, "2", 2)
    (root / ".git" / "objects" / lost[:2] / lost[2:]).unlink()
    history = LockHistory.read(root)
    assert made(history) == ["2"]
    assert history.notes


def test_a_damaged_lock_stops_nobody(root: Path) -> None:
    commit(root, "1", 1)
    (root / "dvc.lock").write_text(f"<<<<<<< {md5('1')}\n")
    history = LockHistory.read(root)
    assert len(list(history.runs(md5("1")))) == 1
    assert [lock.damaged for lock in history.locks] == [False, True]
