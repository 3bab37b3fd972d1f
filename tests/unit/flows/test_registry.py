"""GTO tags: versions are registered once, numbered above all that anybody has, and stages follow what is live."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from flows.registry import (
    RegistryError,
    assign,
    fetch_tags,
    newest_stage_tag,
    next_version,
    parsed,
    publish_tag,
    register,
    registered,
    staged,
)
from flows.repository import (
    GitError,
    changes,
    git,
    main_checkout,
    require_clean,
    require_pushed,
    require_repository,
    without_credentials,
)

DIGEST = "f" * 64


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Three commits."""
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "Tess Ter")
    git(root, "config", "user.email", "tess@example.org")
    (root / "dvc.yaml").write_text("stages: {}\n")
    git(root, "add", "-A")
    for number in range(3):
        git(root, "commit", "-q", "--allow-empty", "-m", f"commit {number}")
    return root


@pytest.fixture
def remote(repository: Path) -> Path:
    bare = repository.parent / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    git(repository, "remote", "add", "origin", str(bare))
    git(repository, "push", "-q", "origin", "main")
    return bare


def commit(root: Path, back: int = 0) -> str:
    return git(root, "rev-parse", f"HEAD~{back}").strip()


def test_a_version_is_registered_once_with_its_attestation_in_the_message(repository: Path) -> None:
    assert register(repository, "movielens", 1, commit(repository), DIGEST) == "movielens@v1.0.0"
    before = git(repository, "rev-parse", "movielens@v1.0.0")
    assert register(repository, "movielens", 1, commit(repository), DIGEST) == "movielens@v1.0.0"
    assert git(repository, "rev-parse", "movielens@v1.0.0") == before
    tag = git(repository, "cat-file", "-p", "movielens@v1.0.0")
    assert f"attestation: sha256:{DIGEST}" in tag and "Tess Ter" in tag
    assert registered(repository, "movielens") == {1: commit(repository)}


def test_a_tag_that_somebody_else_has_made_of_another_commit_is_no_success(repository: Path) -> None:
    git(repository, "tag", "-a", "-m", "forged", "movielens@v1.0.0", commit(repository, 1))
    with pytest.raises(RegistryError, match="is of commit"):
        register(repository, "movielens", 1, commit(repository), DIGEST)


def test_versions_go_on_above_tags_here_and_there_and_what_the_store_has(repository: Path, remote: Path) -> None:
    assert next_version(repository, "movielens", []) == 1
    assert next_version(repository, "movielens", [4]) == 5
    register(repository, "movielens", 6, commit(repository), DIGEST)
    register(repository, "movielens-small", 30, commit(repository, 1), DIGEST)
    assert next_version(repository, "movielens", [4]) == 7
    publish_tag(repository, "movielens@v6.0.0")
    git(repository, "tag", "-d", "movielens@v6.0.0")
    assert next_version(repository, "movielens", []) == 7, "another clone has pushed it"
    fetch_tags(repository, "movielens")
    assert registered(repository, "movielens") == {6: commit(repository)}


def test_stage_tags_are_made_when_what_is_live_changes_and_count_by_number_not_by_time(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, back in ((1, 2), (2, 1)):
        register(repository, "movielens", version, commit(repository, back), DIGEST)
    assert staged(repository, "movielens") is None and newest_stage_tag(repository, "movielens") is None
    assert assign(repository, "movielens", 1, "first") == "movielens#prod#1"
    assert assign(repository, "movielens", 1, "again") is None
    assert assign(repository, "movielens", 2, "second") == "movielens#prod#2"
    # Back to one that was there before, made by a clock that is years behind.
    git(
        repository,
        "tag",
        "-a",
        "-m",
        "x",
        "movielens#prod#3",
        commit(repository, 2),
        env={"GIT_COMMITTER_DATE": "1000000000 +0000"},
    )
    assert staged(repository, "movielens") == 1
    assert assign(repository, "movielens", 2, "again") == "movielens#prod#4"
    with pytest.raises(RegistryError, match=r"v9\.0\.0 is no tag"):
        assign(repository, "movielens", 9, "")


def test_a_remote_that_is_away_is_named_and_no_password_is_shown(repository: Path, remote: Path) -> None:
    register(repository, "movielens", 1, commit(repository), DIGEST)
    shutil.rmtree(remote)
    for attempt in (
        lambda: publish_tag(repository, "movielens@v1.0.0"),
        lambda: next_version(repository, "movielens", []),
    ):
        with pytest.raises(GitError, match="'origin' did not take part") as failure:
            attempt()
        assert "run again" in failure.value.remedy
    assert without_credentials("at https://me:secret@host/x") == "at https://host/x"


def test_a_commit_that_only_this_clone_has_is_refused_once_there_is_a_remote(repository: Path, remote: Path) -> None:
    require_pushed(repository, commit(repository))
    git(repository, "commit", "-q", "--allow-empty", "-m", "more")
    with pytest.raises(GitError, match="is on no remote"):
        require_pushed(repository, commit(repository))
    git(repository, "remote", "remove", "origin")
    require_pushed(repository, commit(repository))


def test_changes_that_are_in_no_commit_are_refused_by_name(repository: Path) -> None:
    require_clean(repository)
    (repository / "dvc.lock").write_text("new")
    (repository / "new file.py").write_text("new")
    assert changes(repository, but=("dvc.lock",)) == ["new file.py"]
    with pytest.raises(GitError, match=r"in no commit: dvc\.lock, new file\.py"):
        require_clean(repository)


def test_the_main_checkout_is_found_from_a_worktree_and_from_a_folder_of_the_repository(tmp_path: Path) -> None:
    root = tmp_path / "repository" / "below"
    root.mkdir(parents=True)
    git(root.parent, "init", "-q")
    with pytest.raises(GitError, match="has no commit yet"):
        require_repository(root)
    with pytest.raises(GitError, match="in no repository"):
        require_repository(tmp_path)
    (root / "dvc.yaml").write_text("stages: {}\n")
    git(root, "add", "-A")
    git(root, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first")
    git(root, "worktree", "add", "-q", "--detach", str(tmp_path / "worktree"))
    assert main_checkout(root).resolve() == root.resolve()
    assert main_checkout(tmp_path / "worktree" / "below").resolve() == root.resolve()


def test_names_of_versions_are_read_in_every_form_and_nothing_else_is() -> None:
    assert parsed("movielens@v3") == parsed("movielens@3") == parsed("movielens@v3.0.0") == ("movielens", 3)
    assert parsed("movielens") == ("movielens", None)
    for wrong in ("movielens@v0", "movielens@v3.1.0", "movielens@", "movie lens", "../x@v1", "x@v99999999999999999999"):
        with pytest.raises(RegistryError, match="is no version"):
            parsed(wrong)
