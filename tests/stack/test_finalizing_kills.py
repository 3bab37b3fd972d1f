"""kill -9 between any two steps of finalizing, and within them: a retry ends in the same state, with one version.

The run is a real one of the ``synthetic`` scenario, in a worktree; git has a remote, and a server takes the event.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from components.provenance.signing import signing_key, trusted_keys
from components.serving.releases import read_release, verify_release, versions
from components.storage.digests import file_digest
from flows.dvc_remote import verify_pushed
from flows.finalizing import STEPS
from flows.repository import keys_of, store_of
from tests.end_to_end.conftest import Checkout, finished  # noqa: F401  # a fixture
from tests.stage_modules import ROOT
from tests.unit.flows.event_server import EventServer
from tests.unit.flows.small_checkout import git


@dataclass(frozen=True)
class Arena:
    """A checkout, a worktree with a finished run, a git remote, and a copy of them all to begin again from."""

    folder: Path
    backup: Path
    environment: dict[str, str]

    @property
    def checkout(self) -> Path:
        return self.folder / "checkout"

    @property
    def worktree(self) -> Path:
        return self.folder / "worktree"

    def begin_again(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.backup, self.folder, symlinks=True)

    def start(self, step: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.stack.killed_finalizing", str(self.checkout), str(self.worktree), step]
        return subprocess.Popen(
            command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(self) -> dict[str, Any]:
        process = self.start("none")
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        return json.loads(output.splitlines()[-1])

    def state(self) -> dict[str, Any]:
        """All that others can see: the store, DVC's remote in it, and what the git remote's refs are of."""
        store = self.checkout / ".recstill/store"
        files = {path.relative_to(store).as_posix(): file_digest(path) for path in store.rglob("*") if path.is_file()}
        refs = git(self.folder / "remote.git", "for-each-ref", "--format=%(refname) %(objectname) %(*objectname)")
        commits = {line.split()[0]: line.split()[-1] for line in refs.splitlines()}
        return {"store": files, "refs": commits}


@pytest.fixture(scope="module")
def server() -> Iterator[EventServer]:
    one = EventServer()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def arena(
    finished: tuple[Checkout, str],  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
    server: EventServer,
) -> Arena:
    folder = tmp_path_factory.mktemp("kills") / "arena"
    one = Arena(folder, folder.with_name("backup"), {**finished[0].environment, "PREFECT_API_URL": server.address})
    shutil.copytree(finished[0].root, one.checkout, symlinks=True)
    git(one.checkout, "config", "user.name", "Tess Ter")
    git(one.checkout, "config", "user.email", "tess@example.org")
    subprocess.run(["git", "init", "-q", "--bare", str(folder / "remote.git")], check=True)
    git(one.checkout, "remote", "add", "origin", str(folder / "remote.git"))
    git(one.checkout, "push", "-q", "origin", "HEAD:main")
    git(one.checkout, "worktree", "add", "-q", "--detach", str(one.worktree), "HEAD")
    shutil.move(one.checkout / "artifacts", one.worktree / "artifacts")
    shutil.move(one.checkout / "dvc.lock", one.worktree / "dvc.lock")
    signing_key(keys_of(one.checkout))  # made once, so that signatures can be compared
    shutil.copytree(folder, one.backup, symlinks=True)
    return one


@pytest.fixture(scope="module")
def undisturbed(arena: Arena) -> tuple[dict[str, Any], dict[str, Any]]:
    """What finalizing tells, and the state it leaves, when nobody kills it."""
    arena.begin_again()
    told = arena.finish()
    return told, arena.state()


def require_one_version(arena: Arena, told: dict[str, Any], server: EventServer) -> None:
    store = store_of(arena.checkout)
    assert versions(store, "synthetic") == [1]
    release = read_release(store, "synthetic", 1, trusted_keys(keys_of(arena.checkout)))
    assert release.attestation == told["attestation"] and verify_release(store, release) == []
    assert verify_pushed(arena.checkout, "synthetic", told["commit"]) == []
    tags = git(arena.checkout, "tag", "--list", "synthetic*").splitlines()
    assert tags == ["synthetic@v1.0.0"]
    assert told["attestation"] in git(arena.folder / "remote.git", "cat-file", "-p", "synthetic@v1.0.0")
    assert len({event["id"] for event in server.received}) == 1, "told again, it is the same event"


@pytest.mark.parametrize("step", range(len(STEPS) + 1), ids=[*(f"before {name}" for name, _ in STEPS), "at the end"])
def test_a_kill_between_two_steps_and_a_retry_end_in_the_same_state(
    arena: Arena, undisturbed: tuple[dict[str, Any], dict[str, Any]], server: EventServer, step: int
) -> None:
    arena.begin_again()
    killed = arena.start(str(step))
    killed.wait(timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.communicate()
    if step <= [name for name, _ in STEPS].index("tag"):
        assert git(arena.checkout, "tag") == "", "no tag before its bytes were read back"
    told = arena.finish()
    assert (told, arena.state()) == undisturbed
    require_one_version(arena, told, server)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.4, 0.55, 0.7, 0.85])
def test_a_kill_within_a_step_and_a_retry_end_in_the_same_state(
    arena: Arena, undisturbed: tuple[dict[str, Any], dict[str, Any]], server: EventServer, share: float
) -> None:
    arena.begin_again()
    process = arena.start("none")
    assert process.stdout is not None and process.stdout.readline() == "begins\n"
    begun = time.monotonic()
    process.communicate(timeout=120)
    seconds = time.monotonic() - begun
    arena.begin_again()
    process = arena.start("none")
    assert process.stdout is not None and process.stdout.readline() == "begins\n"
    time.sleep(share * seconds)
    process.kill()
    process.communicate()
    told = arena.finish()
    state = arena.state()
    # What a killed writer was at may lie about under a temporary name, which no reader takes for anything.
    state["store"] = {key: digest for key, digest in state["store"].items() if not Path(key).name.startswith(".")}
    state["store"] = {key: digest for key, digest in state["store"].items() if not key.endswith(".tmp")}
    assert (told, state) == undisturbed
    require_one_version(arena, told, server)
