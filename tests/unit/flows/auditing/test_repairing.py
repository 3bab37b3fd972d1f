"""`recstill verify --repair`: what another place holds is put back, byte by byte; what none holds is told."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import StorageError
from components.provenance.signing import signing_key
from flows.auditing.exit_status import FOUND
from flows.auditing.verifying import verify, verify_and_repair
from tests.unit.flows.auditing.damages import STORE, objects, overwrite, seeded_damages
from tests.unit.flows.auditing.many_versions import copy_of, plain_environment
from tests.unit.flows.auditing.test_verifying import run
from tests.unit.flows.small_checkout import git

COUNT = 14
RECSTILL = str(Path(sys.executable).parent / "recstill")


def bare(checkout: Path) -> Path:
    """Without DVC's cache and the files of the last run: nothing here holds the bytes twice."""
    shutil.rmtree(checkout / ".dvc/cache")
    shutil.rmtree(checkout / "artifacts")
    return checkout


def test_all_that_a_second_store_holds_is_put_back(registered_checkout: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(registered_checkout / STORE, second)
    left = []
    with plain_environment():
        for number, damage in enumerate(seeded_damages(registered_checkout, COUNT, seed=7)):
            copy = bare(copy_of(registered_checkout, tmp_path / f"copy-{number}"))
            damage.apply(copy)
            found, repairs = verify_and_repair(copy, addresses=[str(second)])
            # A tag for a version that never was is in no store: somebody has to look at it.
            if damage.kind != "forge: new":
                left += [f"{damage}: {one}" for one in found.damaged]
                assert repairs and all(one.done for one in repairs), str(damage)
            shutil.rmtree(copy)
    assert left == []


def test_bytes_of_the_remote_come_from_the_cache_the_work_tree_or_the_store_itself(checkout: Path) -> None:
    for file in objects(checkout)["remote"]:
        (checkout / file).unlink()
    found, repairs = verify_and_repair(checkout)
    assert found.damaged == [] and all(one.done for one in repairs) and len(repairs) > 10
    assert any("DVC's cache" in one.source for one in repairs)
    assert verify(checkout).findings == ()


def test_a_package_comes_back_from_the_remote_and_a_statement_from_its_release(checkout: Path) -> None:
    bare(checkout)
    for group in ("packages", "provenance"):
        for file in objects(checkout)[group]:
            overwrite(checkout / file, b"{}")
    found, repairs = verify_and_repair(checkout)
    assert found.damaged == []
    assert {one.source for one in repairs} >= {"the release that bundles it"}


def test_what_has_no_copy_is_told_and_left_and_copies_that_are_damaged_are_none(checkout: Path, tmp_path: Path) -> None:
    bare(checkout)
    second = tmp_path / "second"
    shutil.copytree(checkout / STORE, second)
    (file,) = [one for one in objects(checkout)["soft-labels"] if one.endswith(".safetensors")][:1]
    overwrite(checkout / file, b"spoiled")
    overwrite(second / file.removeprefix(f"{STORE}/"), b"spoiled too")
    status, document = run("--repair", "--from", str(second), "--json")
    record = json.loads(document)
    assert status == FOUND and record["damage"] == 1
    assert [one["from"] for one in record["repairs"]] == [""]
    assert (checkout / file).read_bytes() == b"spoiled"


def test_a_record_of_a_store_whose_signature_nobody_trusts_is_not_taken(checkout: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(checkout / STORE, second)
    damage = next(
        one for one in seeded_damages(checkout, 60) if one.kind == "signed by another key" and "releases" in one.place
    )
    (key,) = damage.named
    (checkout / STORE / key).unlink()
    stranger = tmp_path / "stranger"
    shutil.copytree(checkout, stranger, symlinks=True)
    shutil.copy2(second / key, stranger / STORE / key)
    damage.apply(stranger)
    found, _ = verify_and_repair(checkout, addresses=[str(stranger)])
    assert [one.object for one in found.damaged] == [key]
    found, _ = verify_and_repair(checkout, addresses=[str(second)])
    assert found.damaged == []


def test_a_tag_is_made_again_only_as_far_as_another_record_says_the_same(checkout: Path) -> None:
    message = git(checkout, "for-each-ref", "--format=%(contents)", "refs/tags/small@v3.0.0")
    git(checkout, "tag", "-d", "small@v3.0.0")
    assert verify_and_repair(checkout)[0].damaged == []
    assert git(checkout, "for-each-ref", "--format=%(contents)", "refs/tags/small@v3.0.0") == message
    # small@v3 was never live: when tag and attestation contradict each other, nobody can say which is right.
    git(
        checkout,
        "tag",
        "-f",
        "-a",
        "-m",
        f"small@v3\n\nattestation: sha256:{'0' * 64}",
        "small@v3.0.0",
        "small@v3.0.0^{}",
    )
    found, repairs = verify_and_repair(checkout)
    assert len(found.damaged) == 1 and not repairs[0].done


def test_an_address_that_is_none_is_a_clear_error(checkout: Path) -> None:
    with pytest.raises(StorageError, match="is no folder"):  # before anything is read, damaged or not
        verify_and_repair(checkout, addresses=["nowhere"])
    assert signing_key(checkout / ".recstill/keys").local


def test_what_has_no_copy_comes_back_by_running_its_stages_again(checkout: Path) -> None:
    bare(checkout)
    file = max(objects(checkout)["remote"], key=lambda one: (checkout / one).stat().st_size)
    content = (checkout / file).read_bytes()
    (checkout / file).unlink()
    status, document = run("--repair", "--json")
    assert status == FOUND and [one["from"] for one in json.loads(document)["repairs"]] == [""]
    status, document = run("--repair", "--reproduce", "--json")
    record = json.loads(document)
    assert status == 0 and record["damage"] == 0
    assert any("reproduced" in one["from"] for one in record["repairs"])
    assert (checkout / file).read_bytes() == content
    assert git(checkout, "worktree", "list").count("\n") == 0, "the worktree is removed"
    assert record["not_made_again"] == []


def test_a_version_that_cannot_be_made_again_is_told_and_the_others_are_made(checkout: Path) -> None:
    bare(checkout)
    tables = [file for file in objects(checkout)["remote"] if (checkout / file).stat().st_size in (41_000, 42_000)]
    for file in tables:  # the events of the first two versions of both models
        (checkout / file).unlink()
    # Somebody else makes the first one again, in a worktree that has to stay.
    lock = checkout / ".recstill" / "locks" / "reproduce-tiny-v1.lock"
    theirs = checkout / ".recstill" / "reproduced" / "tiny-v1"
    for folder in (lock.parent, theirs):
        folder.mkdir(parents=True, exist_ok=True)
    command = [RECSTILL, "verify", "tiny@v1", "tiny@v2", "--repair", "--reproduce", "--json"]
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False, timeout=120)
        assert theirs.is_dir()
    assert done.returncode == FOUND, done.stderr
    record = json.loads(done.stdout)  # nothing that the stages print is in it
    assert [one["versions"] for one in record["findings"] if one["severity"] == "damage"] == [["tiny@v1"]]
    (line,) = record["not_made_again"]
    assert "tiny@v1 cannot be made again: tiny@v1 is being made again already" in line
