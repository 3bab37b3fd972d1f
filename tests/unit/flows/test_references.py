from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import yaml

from components.errors import RecstillError
from flows.references import Reference, references

IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org")


def cache_id(letter: str) -> str:
    return letter * 64


def manifest(letter: str) -> bytes:
    return json.dumps({"id": cache_id(letter)}).encode()


def md5(letter: str) -> str:
    return hashlib.md5(manifest(letter)).hexdigest()


KNOWN = {md5(letter): cache_id(letter) for letter in "abcdef"}


def git(root: Path, *command: str) -> str:
    done = subprocess.run(["git", *IDENTITY, *command], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout


def lock(root: Path, **scenarios: str) -> None:
    """A record of runs in which each scenario has the manifest of a letter."""
    stages = {
        f"soft_labels@{name}": {
            "cmd": "python",
            "deps": [{"path": f"artifacts/{name}/teacher", "md5": "1" * 32}],
            "outs": [{"path": f"artifacts/{name}/soft_labels/manifest.json", "hash": "md5", "md5": md5(letter)}],
        }
        for name, letter in scenarios.items()
    }
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def commit(root: Path, **scenarios: str) -> None:
    lock(root, **scenarios)
    git(root, "add", "dvc.lock")
    git(root, "commit", "-q", "-m", "a run", "--allow-empty")


def found(root: Path) -> set[tuple[str, str, str, str | None]]:
    """Kind, name, scenario, and the letter of the cache; without what the files of this checkout say."""
    return {
        (one.kind, one.name, one.scenario, one.cache and one.cache[0])
        for one in references(root, KNOWN)
        if one.kind != "workspace"
    }


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    return root


def test_the_record_of_every_branch_and_tag_counts_and_a_tag_of_gto_is_a_version(repository: Path) -> None:
    commit(repository, shop="a")
    for tag in ("shop@v1.2.3", "shop@v3", "shop#prod", "shop#prod#2", "folder=news@v1.0.0-rc1", "before-the-move"):
        git(repository, "tag", tag)
    git(repository, "tag", "-a", "-m", "annotated", "shop@v2.0.0")
    git(repository, "checkout", "-q", "-b", "wip/other")
    commit(repository, shop="b", news="c")
    versions = {"shop@v1.2.3", "shop@v3", "shop#prod", "shop#prod#2", "folder=news@v1.0.0-rc1", "shop@v2.0.0"}
    assert found(repository) == {
        *(("version", name, "shop", "a") for name in versions),
        ("tag", "before-the-move", "shop", "a"),
        ("branch", "main", "shop", "a"),
        ("branch", "wip/other", "shop", "b"),
        ("branch", "wip/other", "news", "c"),
    }


def test_remote_tracking_branches_and_a_detached_head_count(repository: Path, tmp_path: Path) -> None:
    commit(repository, shop="a")
    git(tmp_path, "clone", "-q", str(repository), "clone")
    clone = tmp_path / "clone"
    commit(clone, shop="b")
    git(clone, "checkout", "-q", "--detach")
    commit(clone, shop="c")
    names = {(kind, name, letter) for kind, name, _, letter in found(clone)}
    assert {("branch", "origin/main", "a"), ("branch", "main", "b"), ("branch", "HEAD", "c")} <= names


def test_the_files_of_this_checkout_and_of_other_worktrees_count(repository: Path, tmp_path: Path) -> None:
    commit(repository, shop="a")
    git(repository, "worktree", "add", "-q", "--detach", str(tmp_path / "retraining"))
    for root, letter in ((repository, "b"), (tmp_path / "retraining", "d")):
        path = root / "artifacts" / "shop" / "soft_labels" / "manifest.json"
        path.parent.mkdir(parents=True)
        path.write_bytes(manifest(letter))
    lock(repository, shop="c")  # a run that is not committed
    workspaces = {
        (one.name, one.cache and one.cache[0]) for one in references(repository, {}) if one.kind == "workspace"
    }
    here, there = str(repository), str(tmp_path / "retraining")
    assert {(here, "b"), (there, "d")} <= workspaces, "a file says itself which cache it is of"
    workspaces = {(one.name, one.cache and one.cache[0]) for one in references(repository, KNOWN)}
    assert {(here, "b"), (here, "c"), (there, "d")} <= workspaces


def test_a_checkout_below_the_top_of_its_repository_has_its_own_record(repository: Path) -> None:
    (repository / "models").mkdir()
    commit(repository, shop="a")
    commit(repository / "models", shop="b")
    assert found(repository / "models") == {("branch", "main", "shop", "b")}


def test_a_manifest_that_nobody_has_makes_a_reference_to_no_known_cache(repository: Path) -> None:
    commit(repository, shop="a", news="b")
    git(repository, "tag", "shop@v1.0.0")
    unknown = {one for one in references(repository, {md5("b"): cache_id("b")}) if one.cache is None}
    assert {(one.kind, one.name, one.scenario) for one in unknown} == {
        ("version", "shop@v1.0.0", "shop"),
        ("branch", "main", "shop"),
        ("workspace", str(repository), "shop"),
    }


@pytest.mark.parametrize("content", ["stages: [", "<<<<<<< ours\nstages:\n=======", "stages: {a: {outs: [1]}}", "- 1"])
def test_a_damaged_record_of_a_version_is_a_reference_to_nobody_knows_what(repository: Path, content: str) -> None:
    (repository / "dvc.lock").write_text(content)
    git(repository, "add", "dvc.lock")
    git(repository, "commit", "-q", "-m", "damaged")
    git(repository, "tag", "shop@v1.0.0")
    (version,) = [one for one in references(repository, KNOWN) if one.kind == "version"]
    assert version.cache is None and "damaged" in str(version)


def test_without_git_or_a_record_only_the_files_count(tmp_path: Path) -> None:
    assert references(tmp_path, KNOWN) == []
    path = tmp_path / "artifacts" / "shop" / "soft_labels" / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(manifest("a"))
    assert references(tmp_path, {}) == [Reference("workspace", str(tmp_path), "shop", md5("a"), cache_id("a"))]


def test_a_repository_without_a_commit_or_without_a_record_refers_to_nothing(repository: Path) -> None:
    assert references(repository, KNOWN) == []
    git(repository, "commit", "-q", "-m", "no record", "--allow-empty")
    git(repository, "tag", "shop@v1.0.0")
    assert references(repository, KNOWN) == []


def test_a_repository_that_git_cannot_read_is_an_error_and_not_an_empty_answer(repository: Path) -> None:
    commit(repository, shop="a")
    (repository / ".git" / "HEAD").write_text("nothing\n")
    with pytest.raises(RecstillError, match="git rev-parse failed"):
        references(repository, KNOWN)
