"""A checkout of this working tree in an empty folder, driven only through its commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from tests.stage_modules import ROOT

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Checkout:
    """A clean checkout, and the ways to run commands in it as a user would."""

    root: Path
    environment: dict[str, str]

    def run(self, *command: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment (``recstill``, ``dvc``, ``python``); output and errors are kept apart."""
        return subprocess.run(
            command,
            cwd=self.root,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def succeed(self, *command: str, timeout: float = 300, **environment: str) -> str:
        """Run a command that has to end well; its output."""
        done = self.run(*command, timeout=timeout, **environment)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def refuse(self, *command: str, **environment: str) -> str:
        """Run a command that has to end with one clear error and no traceback; the error."""
        done = self.run(*command, **environment)
        assert done.returncode not in (0, 130), f"{' '.join(command)} ended well:\n{done.stdout}"
        assert "Traceback" not in done.stdout + done.stderr, done.stderr
        return done.stderr


def environment_for(folder: Path) -> dict[str, str]:
    """What commands of a checkout below ``folder`` find around them."""
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PREFECT_HOME": str(folder / "prefect"),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "160",
    }
    for name in ("PREFECT_API_URL", "RECSTILL_STORE"):
        environment.pop(name, None)
    return environment


def new_checkout(folder: Path) -> Checkout:
    """The files that git knows or would add, without a record of runs, committed in a new repository."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    root = folder / "recstill"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and name != "dvc.lock":  # what was run here is not what is run there
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    checkout = Checkout(root, environment_for(folder))
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    checkout.succeed("git", "init", "-q")
    checkout.succeed("git", "add", "-A")
    checkout.succeed("git", *identity, "commit", "-q", "-m", "the working tree")
    return checkout


def outcomes(printed: str) -> dict[str, str]:
    """Stage name to ran or cached, from the lines that end a stage."""
    lines = [line.split() for line in printed.splitlines() if line.startswith(("✓", "=", "-"))]
    return {line[1].partition("@")[0]: line[2] for line in lines}


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkout, str]:
    """A checkout in which the synthetic scenario has run, and what the run printed.

    It runs once for all workers, and each has a copy: what one of them reads, no other locks.
    """
    mine = tmp_path_factory.mktemp("finished")
    together = tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else mine
    original, printed = together / "original", together / "printed"
    with FileLock(together / "original.lock"):
        if not printed.exists():
            made = new_checkout(original)
            printed.write_text(made.succeed("recstill", "run", "synthetic"))
    shutil.copytree(original / "recstill", mine / "recstill", symlinks=True)
    return Checkout(mine / "recstill", environment_for(mine)), printed.read_text()


@pytest.fixture
def another(finished: tuple[Checkout, str], tmp_path: Path) -> Checkout:
    """A copy of the checkout in which the synthetic scenario has run, to change at will."""
    shutil.copytree(finished[0].root, tmp_path / "recstill", symlinks=True)
    return Checkout(tmp_path / "recstill", finished[0].environment)


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    """A checkout in which nothing has run."""
    return new_checkout(tmp_path)
