"""From a finished run to a version: what is refused, what is resumed, and that nothing half-done counts."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from components.errors import IntegrityError, RecstillError, SettingsError, StorageError
from components.provenance.bill_of_materials import bill_problems
from components.provenance.signing import signing_key, trusted_keys
from components.provenance.stage_statement import find_statement, read_bundle
from components.serving.package_folder import BOM, BUNDLE, GATE
from components.serving.releases import read_release, verify_release, versions
from flows.dvc_remote import verify_pushed
from flows.events import ServerError
from flows.finalizing import STEPS, FinishedRun, Registered, finalize
from flows.registry import registered
from flows.repository import GitError, keys_of, store_of
from tests.unit.flows.event_server import EventServer
from tests.unit.flows.small_checkout import SCENARIO, VERDICT, git, small_checkout, with_remote
from tests.unit.serving.conftest import artifacts, content, package  # noqa: F401  # fixtures

KEY = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Path:  # noqa: F811
    return small_checkout(tmp_path_factory.mktemp("made"), package)


@pytest.fixture
def checkout(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RECSTILL_STORE", "PREFECT_API_URL", "RECSTILL_SIGNING_KEY", "RECSTILL_TRUSTED_KEYS"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(made, tmp_path / "checkout", symlinks=True)
    return tmp_path / "checkout"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EventServer]:
    one = EventServer()
    monkeypatch.setenv("PREFECT_API_URL", one.address)
    yield one
    one.stop()


def run_of(checkout: Path, key: str = KEY) -> FinishedRun:
    return FinishedRun(checkout, checkout, SCENARIO, key, VERDICT)


def nothing(line: str) -> None:
    """Nobody listens."""


def test_a_run_becomes_a_version_whose_bytes_signature_tag_and_event_agree(checkout: Path, server: EventServer) -> None:
    remote = with_remote(checkout)
    head, lock = git(checkout, "rev-parse", "HEAD"), (checkout / "dvc.lock").read_bytes()
    done = finalize(run_of(checkout), nothing)
    assert (done.name, done.version) == (SCENARIO, 1)
    release = read_release(store_of(checkout), SCENARIO, 1, trusted_keys(keys_of(checkout)))
    assert release.attestation == done.attestation and release.commit == done.commit
    assert verify_release(store_of(checkout), release) == verify_pushed(checkout, SCENARIO, done.commit) == []
    assert git(remote, "rev-parse", "tiny@v1.0.0^{commit}") == done.commit
    assert git(remote, "rev-parse", f"refs/heads/recstill/tiny/{KEY[:12]}") == done.commit
    assert done.attestation in git(remote, "cat-file", "-p", "tiny@v1.0.0")
    assert git(checkout, "show", f"{done.commit}:dvc.lock").encode() == lock.strip()
    assert [event["payload"]["attestation"] for event in server.received] == [done.attestation]
    # The user's checkout is as it was.
    assert git(checkout, "rev-parse", "HEAD") == head and git(checkout, "status", "--porcelain") == "?? dvc.lock"
    assert git(checkout, "symbolic-ref", "HEAD") == "refs/heads/main"


def test_a_version_has_its_statements_and_its_bill(checkout: Path) -> None:
    done = finalize(run_of(checkout), nothing)
    store, keys = store_of(checkout), trusted_keys(keys_of(checkout))
    release = read_release(store, SCENARIO, 1, keys)
    assert (release.dirty, release.run_key, release.who) == (False, KEY, "Tess Ter <tess@example.org>")
    (statement,) = read_bundle(store.get(release.key(BUNDLE), release.files[BUNDLE]), keys, "the bundle")
    assert statement.address == f"make@{SCENARIO}" and statement.attached == "afterwards"
    assert statement.digests["package"] == release.package
    held = f"artifacts/{SCENARIO}/package/"
    attested = {path.removeprefix(held): one.sha256 for path, one in statement.subjects.items() if held in path}
    assert attested == {file: digest for file, digest in release.files.items() if file not in (BUNDLE, BOM, GATE)}
    bill = store.get(release.key(BOM), release.files[BOM])
    assert bill_problems(bill) == []
    assert json.loads(bill)["metadata"]["timestamp"] == done.created
    stored = find_statement(store, SCENARIO, statement.entry, keys)
    assert stored is not None and stored.subjects == statement.subjects


@pytest.mark.parametrize("file", [BUNDLE, BOM])
def test_a_damaged_paper_of_a_version_is_found(checkout: Path, file: str) -> None:
    finalize(run_of(checkout), nothing)
    store = store_of(checkout)
    release = read_release(store, SCENARIO, 1, trusted_keys(keys_of(checkout)))
    path = store.local_file(release.key(file))
    assert path is not None
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-2])
    assert [file in problem for problem in verify_release(store, release)] == [True]


def test_doing_it_again_gives_the_same_version(checkout: Path) -> None:
    assert finalize(run_of(checkout), nothing) == finalize(run_of(checkout), nothing)
    assert versions(store_of(checkout), SCENARIO) == [1]


def test_a_run_that_was_measured_again_after_it_was_attested_keeps_its_first_version(checkout: Path) -> None:
    first = finalize(run_of(checkout), nothing)
    lock = checkout / "dvc.lock"
    lock.write_text(lock.read_text() + "# written again\n")
    os.utime(lock, (2e9, 2e9))
    assert finalize(run_of(checkout), nothing) == first
    assert versions(store_of(checkout), SCENARIO) == [1]


def test_a_branch_of_an_attempt_that_became_no_version_is_replaced(checkout: Path) -> None:
    remote = with_remote(checkout)
    branch = f"refs/heads/recstill/tiny/{KEY[:12]}"
    git(checkout, "update-ref", branch, "HEAD")
    git(checkout, "push", "-q", "origin", f"HEAD:{branch}")
    done = finalize(run_of(checkout), nothing)
    assert git(remote, "rev-parse", branch) == done.commit


def test_two_runs_at_once_get_two_versions_each_with_its_own_verdict(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each in a worktree of its own, with a lock of its own.
    runs = []
    for number, key in enumerate(("a" * 64, "b" * 64)):
        worktree = checkout.parent / f"worktree-{number}"
        git(checkout, "worktree", "add", "-q", "--detach", str(worktree))
        shutil.copytree(checkout / "artifacts", worktree / "artifacts")
        (worktree / "dvc.lock").write_text((checkout / "dvc.lock").read_text() + f"# {number}\n")
        runs.append(FinishedRun(checkout, worktree, SCENARIO, key, {**VERDICT, "dataset": f"{number}" * 64}))
    signing_key(keys_of(checkout))
    together = threading.Barrier(2)
    position = [name for name, _ in STEPS].index("attest")
    meet = ("meet", lambda work: together.wait(timeout=30) and None)
    monkeypatch.setattr("flows.finalizing.STEPS", (*STEPS[:position], meet, *STEPS[position:]))
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda run: finalize(run, nothing), runs))
    monkeypatch.setattr("flows.finalizing.STEPS", STEPS)
    store, keys = store_of(checkout), trusted_keys(keys_of(checkout))
    assert sorted(one.version for one in both) == versions(store, SCENARIO) == [1, 2]
    assert {one.version: one.commit for one in both} == registered(checkout, SCENARIO)
    for run, one in zip(runs, both, strict=True):
        release = read_release(store, SCENARIO, one.version, keys)
        assert verify_release(store, release) == []
        assert run.verdict["dataset"] in store.get(release.key("gate.json")).decode()
    assert finalize(runs[0], nothing) == both[0]


def another_machine(checkout: Path, remote: Path) -> Path:
    """A clone with the same run, measured a little differently, by somebody else, who signs with a key of his own."""
    other = checkout.with_name("another")
    git(checkout.parent, "clone", "-q", "-b", "main", str(remote), str(other))
    git(other, "config", "user.name", "Otto Other")
    git(other, "config", "user.email", "otto@example.org")
    shutil.copytree(checkout / "artifacts", other / "artifacts")
    (other / "dvc.lock").write_text((checkout / "dvc.lock").read_text() + "# measured elsewhere\n")
    return other


@pytest.fixture
def machines(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    """Two that share a store and a git remote, and trust each other's key; the remote."""
    remote = with_remote(checkout)
    other = another_machine(checkout, remote)
    monkeypatch.setenv("RECSTILL_STORE", f"file://{tmp_path}/store")
    keys = [signing_key(keys_of(root)).public.pem for root in (checkout, other)]
    monkeypatch.setenv("RECSTILL_TRUSTED_KEYS", "\n".join(keys))
    return checkout, other, remote


def require_one_version_for_both(machines: tuple[Path, Path, Path], both: list[Registered]) -> None:
    checkout, other, remote = machines
    assert both[0] == both[1] and both[0].version == 1
    store = store_of(checkout)
    assert versions(store, SCENARIO) == [1]
    release = read_release(store, SCENARIO, 1, trusted_keys(keys_of(checkout)))
    assert release.attestation == both[0].attestation and verify_release(store, release) == []
    refs = [f"refs/heads/recstill/tiny/{KEY[:12]}", "refs/tags/tiny@v1.0.0^{commit}"]
    for root in (checkout, other, remote):
        assert [git(root, "rev-parse", ref) for ref in refs] == [release.commit] * 2
        assert git(root, "tag") == "tiny@v1.0.0"
    assert {git(root, "rev-parse", refs[1].removesuffix("^{commit}")) for root in (checkout, other, remote)} == {
        git(remote, "rev-parse", "refs/tags/tiny@v1.0.0")
    }
    assert verify_pushed(checkout, SCENARIO, release.commit) == []


@pytest.mark.parametrize("meeting", [name for name, _ in STEPS])
def test_two_machines_that_finish_one_run_at_once_make_one_version(
    machines: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, meeting: str
) -> None:
    together = threading.Barrier(2)
    position = [name for name, _ in STEPS].index(meeting)
    meet = ("meet", lambda work: together.wait(timeout=20) and None)
    monkeypatch.setattr("flows.finalizing.STEPS", (*STEPS[:position], meet, *STEPS[position:]))
    with ThreadPoolExecutor(2) as threads:
        both = list(threads.map(lambda root: finalize(run_of(root), nothing), machines[:2]))
    require_one_version_for_both(machines, both)


def test_a_machine_that_comes_later_to_the_same_run_takes_over_its_version(machines: tuple[Path, Path, Path]) -> None:
    require_one_version_for_both(machines, [finalize(run_of(root), nothing) for root in machines[:2]])


def test_a_run_whose_version_was_damaged_gets_no_second_one(checkout: Path) -> None:
    done = finalize(run_of(checkout), nothing)
    path = checkout / ".recstill/store/releases/tiny/v1/attestation.dsse.json"
    whole = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(whole.replace(b"payload", b"pay1oad", 1))
    with pytest.raises(IntegrityError, match=r"is tiny@v1 already, and that is refused"):
        finalize(run_of(checkout), nothing)
    assert versions(store_of(checkout), SCENARIO) == [1] and registered(checkout, SCENARIO) == {1: done.commit}
    path.write_bytes(whole)
    assert finalize(run_of(checkout), nothing) == done


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("code.py", "in no commit: code.py"),
        ("artifacts/tiny/dataset/train.parquet", "is not what its dvc.lock records"),
        ("source", "in no commit: source"),
    ],
)
def test_a_dirty_tree_or_changed_output_is_refused_before_anything_is_done(
    checkout: Path, change: str, words: str
) -> None:
    (checkout / change).write_text("changed")
    with pytest.raises((GitError, IntegrityError), match=words):
        finalize(run_of(checkout), nothing)
    assert not (checkout / ".recstill/store").exists()
    assert git(checkout, "for-each-ref") == f"{git(checkout, 'rev-parse', 'HEAD')} commit\trefs/heads/main"


def test_a_commit_that_nobody_else_has_is_refused(checkout: Path) -> None:
    with_remote(checkout, pushed=False)
    with pytest.raises(GitError, match="is on no remote"):
        finalize(run_of(checkout), nothing)


def test_an_unreachable_git_remote_stops_before_a_version_and_is_resumed(checkout: Path) -> None:
    remote = with_remote(checkout)
    away = remote.rename(remote.with_name("away.git"))
    with pytest.raises(GitError, match="'origin' did not take part"):
        finalize(run_of(checkout), nothing)
    assert versions(store_of(checkout), SCENARIO) == [] and registered(checkout, SCENARIO) == {}
    away.rename(remote)
    assert finalize(run_of(checkout), nothing).version == 1


def test_an_unwritable_dvc_remote_stops_before_a_version_and_is_resumed(checkout: Path) -> None:
    blocked = checkout / ".recstill/store/dvc"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="cannot be read or written"):
        finalize(run_of(checkout), nothing)
    assert versions(store_of(checkout), SCENARIO) == [] and registered(checkout, SCENARIO) == {}
    blocked.unlink()
    assert finalize(run_of(checkout), nothing).version == 1


def test_what_cannot_be_read_back_is_written_once_more_and_then_refused(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(work: Any) -> None:
        path = max(
            (checkout / ".recstill/store/dvc").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size
        )
        path.chmod(0o644)
        path.write_bytes(bytes(path.stat().st_size))

    position = [name for name, _ in STEPS].index("read back")
    monkeypatch.setattr("flows.finalizing.STEPS", (*STEPS[:position], ("damage", damage), *STEPS[position:]))
    said: list[str] = []
    assert finalize(run_of(checkout), said.append).version == 1
    assert any("written again" in line for line in said)
    assert verify_pushed(checkout, SCENARIO) == []


def test_a_release_that_cannot_be_read_back_is_not_tagged(checkout: Path) -> None:
    finalize(run_of(checkout), nothing)
    git(checkout, "tag", "-d", "tiny@v1.0.0")
    gate = next((checkout / ".recstill/store/releases/tiny/v1").glob("gate-*.json"))
    gate.chmod(0o644)
    gate.write_text("{}")
    with pytest.raises(IntegrityError, match=r"cannot be read back: .*gate\.json"):
        finalize(run_of(checkout), nothing)
    assert registered(checkout, SCENARIO) == {}


def test_a_key_that_nobody_trusts_makes_no_version(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSTILL_TRUSTED_KEYS", signing_key(tmp_path / "another").public.pem)
    with pytest.raises(SettingsError, match="is not trusted"):
        finalize(run_of(checkout), nothing)
    assert versions(store_of(checkout), SCENARIO) == []


def test_a_server_that_is_down_is_told_at_the_end_and_telling_it_is_made_up_for(
    checkout: Path, server: EventServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = server.address
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(ServerError, match="does not answer"):
        finalize(run_of(checkout), nothing)
    assert registered(checkout, SCENARIO).keys() == {1}
    monkeypatch.setenv("PREFECT_API_URL", address)
    assert finalize(run_of(checkout), nothing).version == 1
    assert len(server.received) == 1


def test_a_clock_that_was_behind_gives_no_commit_older_than_its_parent(checkout: Path) -> None:
    os.utime(checkout / "dvc.lock", (1e9, 1e9))
    done = finalize(run_of(checkout), nothing)
    assert int(git(checkout, "show", "-s", "--format=%ct", done.commit)) >= int(
        git(checkout, "show", "-s", "--format=%ct", "HEAD")
    )


def test_outside_of_a_repository_nothing_is_registered(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    with pytest.raises(RecstillError, match="in no repository"):
        finalize(run_of(checkout), nothing)
