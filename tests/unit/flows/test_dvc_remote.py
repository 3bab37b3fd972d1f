"""The bytes behind dvc.lock: what is written is read back, and no damage passes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from components.errors import IntegrityError, StorageError
from flows.dvc_remote import push_scenario, restore_output, shared_cache, verify_pushed
from flows.locked_outputs import lock_problems, outputs, workspace_problems
from tests.unit.flows.small_checkout import SCENARIO, dvc, git, small_checkout

DATASET = "artifacts/tiny/dataset"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkout(tmp_path_factory.mktemp("made"))


@pytest.fixture
def checkout(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("RECSTILL_STORE", raising=False)
    shutil.copytree(made, tmp_path / "checkout", symlinks=True)
    return tmp_path / "checkout"


def stored(root: Path, path: str) -> Path:
    """The remote's file of an output; the remote is a folder of the store, since none is configured."""
    md5 = next(output.md5 for output in outputs(root, SCENARIO) if output.path == path)
    return root / ".recstill/store/dvc/files/md5" / md5[:2] / md5[2:]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def test_what_dvc_has_recorded_is_what_is_here(checkout: Path) -> None:
    assert {output.path: output.is_folder for output in outputs(checkout, SCENARIO)} == {
        "artifacts/tiny/events.parquet": False,
        DATASET: True,
    }
    assert workspace_problems(checkout, SCENARIO) == lock_problems(checkout, SCENARIO) == []


def test_files_that_are_not_what_the_lock_records_are_named(checkout: Path) -> None:
    flip(checkout / DATASET / "deep/users.parquet")
    (checkout / "artifacts/tiny/events.parquet").unlink()
    assert workspace_problems(checkout, SCENARIO) == [
        f"{DATASET} is not what dvc.lock records",
        "artifacts/tiny/events.parquet is missing",
    ]
    with pytest.raises(IntegrityError, match="not what"):
        push_scenario(checkout, SCENARIO, print)


def test_a_lock_of_other_code_or_parameters_is_named(checkout: Path) -> None:
    (checkout / "source").write_text("other events\n")
    (checkout / "params.yaml").write_text("scenarios: {tiny: {seed: 1}}\n")
    assert lock_problems(checkout, SCENARIO) == [
        "params.yaml has another scenarios.tiny.seed than dvc.lock records",
        "source is not the file that dvc.lock records",
    ]


def test_what_is_pushed_is_read_back_and_not_pushed_twice(checkout: Path) -> None:
    assert len(verify_pushed(checkout, SCENARIO)) == 2
    assert push_scenario(checkout, SCENARIO, print) == 4
    assert verify_pushed(checkout, SCENARIO) == []
    assert push_scenario(checkout, SCENARIO, print) == 0


def test_dvc_itself_finds_what_was_pushed(checkout: Path) -> None:
    push_scenario(checkout, SCENARIO, print)
    dvc(checkout, "remote", "add", "-q", "-d", "store", str(checkout / ".recstill/store/dvc"))
    shutil.rmtree(checkout / ".dvc/cache")
    shutil.rmtree(checkout / "artifacts")
    dvc(checkout, "pull", "-q")
    assert workspace_problems(checkout, SCENARIO) == []


@pytest.mark.parametrize("path", ["artifacts/tiny/events.parquet", DATASET])
def test_a_flipped_byte_or_a_lost_object_is_found_and_mended(checkout: Path, path: str) -> None:
    push_scenario(checkout, SCENARIO, print)
    flip(stored(checkout, path))
    assert len(verify_pushed(checkout, SCENARIO)) == 1 and "damaged" in verify_pushed(checkout, SCENARIO)[0]
    assert push_scenario(checkout, SCENARIO, print) == 0, "the size is right: only hashing finds it"
    assert push_scenario(checkout, SCENARIO, print, again=True) == 1
    assert verify_pushed(checkout, SCENARIO) == []
    stored(checkout, path).unlink()
    assert "missing" in verify_pushed(checkout, SCENARIO)[0]


def test_an_output_of_an_older_revision_is_restored_from_cache_or_remote(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "add", "dvc.lock")
    git(checkout, "commit", "-q", "-m", "a run")
    push_scenario(checkout, SCENARIO, print)
    (checkout / "dvc.lock").write_text("something else")
    target = tmp_path / "restored" / "dataset"
    for _ in range(2):  # the second time without a cache, over what is there
        assert restore_output(checkout, "HEAD", DATASET, target) == target
        names = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
        assert names == ["deep/users.parquet", "train.parquet"]
        assert (target / "deep/users.parquet").read_text() == "größe\n"
        shutil.rmtree(checkout / ".dvc/cache", ignore_errors=True)
    # What is damaged everywhere is not restored, and what was restored before stays.
    with pytest.raises(IntegrityError, match="no output"):
        restore_output(checkout, "HEAD", "artifacts/tiny/nothing", target)
    flip(_events(checkout))
    with pytest.raises(IntegrityError, match="neither in DVC's cache"):
        restore_output(checkout, "HEAD", "artifacts/tiny/events.parquet", tmp_path / "events.parquet")
    assert not (tmp_path / "events.parquet").exists()


def _events(root: Path) -> Path:
    md5 = next(out.md5 for out in outputs(root, SCENARIO, "HEAD") if out.path.endswith("events.parquet"))
    return root / ".recstill/store/dvc/files/md5" / md5[:2] / md5[2:]


def test_a_worktree_uses_the_cache_of_its_checkout_and_git_does_not_see_it(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "add", "dvc.lock")
    git(checkout, "commit", "-q", "-m", "a run")
    git(checkout, "worktree", "add", "-q", "--detach", str(tmp_path / "worktree"), "HEAD")
    shared_cache(checkout, tmp_path / "worktree")
    assert git(tmp_path / "worktree", "status", "--porcelain") == ""
    dvc(tmp_path / "worktree", "checkout", "-q")
    assert workspace_problems(tmp_path / "worktree", SCENARIO) == []
    # The store is the checkout's, too.
    push_scenario(tmp_path / "worktree", SCENARIO, print)
    assert verify_pushed(checkout, SCENARIO) == []


def test_a_remote_that_is_named_and_not_there_is_told(checkout: Path) -> None:
    dvc(checkout, "config", "-q", "core.remote", "elsewhere")
    with pytest.raises(StorageError, match="elsewhere"):
        push_scenario(checkout, SCENARIO, print)
    (checkout / "blocked").write_text("a file where the folder should be")
    dvc(checkout, "remote", "add", "-q", "-f", "elsewhere", str(checkout / "blocked"))
    with pytest.raises(StorageError, match="cannot be read or written"):
        push_scenario(checkout, SCENARIO, print)


def test_a_checkout_without_a_run_is_told(checkout: Path) -> None:
    with pytest.raises(IntegrityError, match="records no run of 'other'"):
        verify_pushed(checkout, "other")
    (checkout / "dvc.lock").write_text("stages: [")
    with pytest.raises(IntegrityError, match="damaged"):
        verify_pushed(checkout, SCENARIO)
    (checkout / "dvc.lock").unlink()
    with pytest.raises(IntegrityError, match="no readable"):
        verify_pushed(checkout, SCENARIO)
