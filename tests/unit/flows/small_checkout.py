"""A checkout with one scenario whose run takes no time: real git, real DVC, a file, a folder and a parameter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

SCENARIO = "tiny"
# As the gate writes it.
VERDICT: dict[str, Any] = {
    **{"format": 1, "passed": True, "kind": "first", "reasons": [], "checks": [], "champion": None},
    **{"challenger": {"ndcg10": 0.1, "targets": 100, "cold_targets": 0}, "difference": None, "data": {}, "drift": None},
    **{"holdout": {"targets": 100, "users": 50, "dropped_trained": 0, "from": "", "to": ""}, "dataset": "d" * 64},
}
_MAKE = (
    "mkdir -p artifacts/tiny/dataset/deep && cat source > artifacts/tiny/events.parquet && "
    "echo rows > artifacts/tiny/dataset/train.parquet && echo 'größe' > artifacts/tiny/dataset/deep/users.parquet"
)
_STAGE = {
    "cmd": _MAKE,
    "deps": ["source"],
    "params": ["scenarios.tiny.seed"],
    "outs": ["artifacts/tiny/events.parquet", "artifacts/tiny/dataset"],
}


def git(root: Path, *command: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *command], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def small_checkout(folder: Path, package: Path | None = None) -> Path:
    """A commit, and a run on top of it that is in no commit yet; ``package`` is what the run "makes" as its package."""
    root = folder / "checkout"
    root.mkdir(parents=True)
    stage = dict(_STAGE)
    if package is not None:
        stage["cmd"] = f"{_MAKE} && cp -r {package} artifacts/tiny/package"
        stage["outs"] = [*_STAGE["outs"], "artifacts/tiny/package"]
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"make": {"foreach": [SCENARIO], "do": stage}}}))
    (root / "params.yaml").write_text(yaml.safe_dump({"scenarios": {SCENARIO: {"seed": 0}}}))
    (root / "source").write_text("events\n" * 1000)
    (root / ".gitignore").write_text("/artifacts/\n/.recstill/\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "Tess Ter")
    git(root, "config", "user.email", "tess@example.org")
    dvc(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "a checkout")
    dvc(root, "repro", "-q")
    # DVC wants its outputs ignored one by one; the folder above them is ignored already.
    git(root, "checkout", "-q", "--", ".")
    git(root, "clean", "-q", "-f", "-d", "-e", "dvc.lock")
    return root


def with_remote(root: Path, *, pushed: bool = True) -> Path:
    """Give a checkout a bare remote beside it."""
    remote = root.parent / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", str(remote)], check=True)
    git(root, "remote", "add", "origin", str(remote))
    if pushed:
        git(root, "push", "-q", "origin", "main")
        git(root, "fetch", "-q", "origin")
    return remote


def dvc(root: Path, *command: str) -> None:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    subprocess.run([str(Path(sys.executable).parent / "dvc"), *command], cwd=root, env=environment, check=True)
