"""A version is made again from its commit with nothing cached, and told apart from one that only looks alike."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.errors import IntegrityError
from flows.auditing.exit_status import FOUND
from tests.unit.flows import small_checkout
from tests.unit.flows.auditing.released_checkout import released_checkout
from tests.unit.flows.small_checkout import git
from tests.unit.serving.conftest import artifacts, content, package  # noqa: F401  # fixtures

RECSTILL = str(Path(sys.executable).parent / "recstill")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RECSTILL_STORE", "PREFECT_API_URL", "RECSTILL_SIGNING_KEY", "RECSTILL_TRUSTED_KEYS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Path:  # noqa: F811
    return released_checkout(tmp_path_factory.mktemp("made"), package)[0]


@pytest.fixture
def checkout(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "checkout", symlinks=True)
    return tmp_path / "checkout"


def reproduce(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [RECSTILL, "reproduce", *options]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)


def test_every_stage_runs_again_and_every_byte_is_the_same(checkout: Path) -> None:
    before = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file() and ".git" not in path.parts}
    done = reproduce(checkout, "tiny@v1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["identical"] is True
    assert {one["verdict"] for one in found["files"]} == {"identical"}
    assert {one["path"] for one in found["files"]} >= {
        "artifacts/tiny/events.parquet",
        "artifacts/tiny/package/golden.json",
    }
    assert [one["stage"] for one in found["stages"]] == ["make@tiny"]
    assert found["worktree"] is None
    # The checkout, its cache and its store are as they were, and the worktree is gone.
    after = {path: path.read_bytes() for path in checkout.rglob("*") if path.is_file() and ".git" not in path.parts}
    new = {
        path
        for path in set(after) - set(before)
        if ".recstill/locks" not in path.as_posix() and "tmp" not in path.parts
    }
    assert new == set()
    assert all(after[path] == bytes_before for path, bytes_before in before.items() if "tmp" not in path.parts)
    assert len(git(checkout, "worktree", "list").splitlines()) == 1


def test_a_copy_from_the_cache_would_not_notice_what_reproducing_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: Path,  # noqa: F811
) -> None:
    when = "date +%s%N > artifacts/tiny/dataset/deep/when.bin"
    monkeypatch.setattr(small_checkout, "_MAKE", f"{small_checkout._MAKE} && {when}")
    root, _ = released_checkout(tmp_path, package)
    # The naive twin: a clean worktree that shares the cache, as any scheduled run has it.
    small_checkout.dvc(root, "repro", "-q")
    assert git(root, "status", "--porcelain", "--untracked-files=no", "dvc.lock") == ""
    done = reproduce(root, "tiny")
    assert done.returncode == FOUND, done.stderr
    assert "artifacts/tiny/dataset/deep/when.bin: other bytes" in done.stdout
    kept = root / ".recstill" / "reproduced" / "tiny-v1"
    assert f"kept: {kept}" in done.stdout
    assert (kept / "artifacts/tiny/dataset/deep/when.bin").is_file()


def test_a_source_that_has_changed_is_told_before_anything_runs(checkout: Path) -> None:
    from flows.auditing.reproducing import prepared, run

    attempt = prepared(checkout, "tiny", 1)
    (checkout / "source").write_text("other events\n")
    git(checkout, "commit", "-q", "-a", "-m", "other events")
    attempt.base = git(checkout, "rev-parse", "HEAD")
    with pytest.raises(IntegrityError, match="source has changed since"):
        run(attempt, lambda _: None, lambda _: None, lambda _: None)
    attempt.remove()


def test_a_version_that_is_not_there_is_one_clear_error(checkout: Path) -> None:
    done = reproduce(checkout, "tiny@v7")
    assert done.returncode == 1
    assert "no release tiny@v7; of tiny there is: v1" in done.stderr
    assert "Traceback" not in done.stderr


def test_who_is_told_that_another_is_at_work_leaves_that_ones_worktree_alone(checkout: Path) -> None:
    from flows.auditing.reproducing import alone_with, prepared

    attempt = prepared(checkout, "tiny", 1)
    attempt.path.mkdir(parents=True)
    with alone_with(attempt):
        done = reproduce(checkout, "tiny@v1")
    assert done.returncode == 1
    assert "being made again already" in done.stderr
    assert attempt.path.is_dir()


def test_ctrl_c_ends_within_seconds_and_leaves_no_worktree(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    package: Path,  # noqa: F811
) -> None:
    monkeypatch.setattr(
        small_checkout, "_MAKE", f"{small_checkout._MAKE} && if [ -e ../../../slow ]; then sleep 60; fi"
    )
    root, _ = released_checkout(tmp_path, package)
    (root / "slow").touch()
    process = subprocess.Popen(
        [RECSTILL, "reproduce", "tiny"], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    tree = root / ".recstill" / "reproduced" / "tiny-v1"
    limit = time.monotonic() + 60
    while not (tree / "artifacts/tiny/dataset/deep/users.parquet").is_file() and time.monotonic() < limit:
        time.sleep(0.1)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert time.monotonic() - started < 30
    assert "interrupted" in errors
    assert not tree.exists()
    assert len(git(root, "worktree", "list").splitlines()) == 1


def test_a_file_with_the_md5_of_the_lock_and_another_sha256_than_was_signed_is_another(tmp_path: Path) -> None:
    from flows.auditing.comparing import ComparedFile
    from flows.auditing.reproducing import _held_against

    (tmp_path / "a").write_bytes(b"a")
    same = ComparedFile("a", "identical")
    sha256 = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert _held_against({"a": sha256}, same, tmp_path) == same == _held_against({}, same, tmp_path)
    assert _held_against({"a": "0" * 64}, same, tmp_path).verdict == "other bytes"


def test_the_statements_of_the_version_are_what_it_is_held_against(checkout: Path) -> None:
    from flows.auditing.reproducing import _attested, prepared

    attested = _attested(prepared(checkout, "tiny", 1))
    assert "artifacts/tiny/dataset/train.parquet" in attested
    assert "artifacts/tiny/package/golden.json" in attested
