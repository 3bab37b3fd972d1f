"""How fast ``recstill verify`` reads, against SHA-256 alone on one core: a version of a few GB of made-up bytes."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import yaml

from flows.auditing.verifying import verify
from flows.finalizing import FinishedRun, finalize
from tests.unit.flows.small_checkout import VERDICT, dvc, git

NAME = "big"
_FILE = 64 << 20
_ROUNDS = 3


def rates(folder: Path, size: int, package: Path) -> dict[str, float]:
    """Bytes a second.

    Args:
        folder: Where the checkout is made; it takes twice the size.
        size: Bytes of the version.
        package: A package, which every version has.

    Returns:
        ``sha256``: of one core, of bytes in memory. ``verify``: of the whole command's work, with as many threads as
        there are cores. ``one_thread``: with one.
    """
    root = _registered(folder, size, package)
    found: dict[str, list[float]] = {"sha256": [], "verify": [], "one_thread": []}
    for _ in range(_ROUNDS):  # in turn, so that what else the machine does hits all alike
        found["sha256"].append(_sha256_rate())
        for name, workers in (("verify", None), ("one_thread", 1)):
            started = time.perf_counter()
            verified = verify(root, workers=workers)
            found[name].append(verified.bytes / (time.perf_counter() - started))
            assert not verified.findings and verified.bytes > 0.9 * size
    return {name: max(values) for name, values in found.items()}


def _sha256_rate() -> float:
    content = os.urandom(_FILE)
    started = time.perf_counter()
    for _ in range(8):
        hashlib.sha256(content).digest()
    return 8 * _FILE / (time.perf_counter() - started)


def _registered(folder: Path, size: int, package: Path) -> Path:
    root = folder / "big"
    root.mkdir()
    count = max(1, size // _FILE)
    make = (
        f"mkdir -p artifacts/big/dataset && for i in $(seq {count}); do head -c {_FILE} /dev/urandom > "
        f"artifacts/big/dataset/$i.parquet; done && cp -r {package} artifacts/big/package"
    )
    stage = {
        **{"cmd": make, "deps": ["source"], "params": ["scenarios.big.seed"]},
        "outs": ["artifacts/big/dataset", "artifacts/big/package"],
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"make": {"foreach": [NAME], "do": stage}}}))
    (root / "params.yaml").write_text(yaml.safe_dump({"scenarios": {NAME: {"seed": 0}}}))
    (root / "source").write_text("bytes from nowhere\n")
    (root / ".gitignore").write_text("/artifacts/\n/.recstill/\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "Tess Ter")
    git(root, "config", "user.email", "tess@example.org")
    dvc(root, "init", "-q")
    dvc(root, "config", "-q", "cache.type", "hardlink,symlink")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "a checkout")
    dvc(root, "repro", "-q")
    git(root, "checkout", "-q", "--", ".")
    git(root, "clean", "-q", "-f", "-d", "-e", "dvc.lock")
    finalize(FinishedRun(root, root, NAME, "b" * 64, VERDICT), lambda line: None)
    return root
