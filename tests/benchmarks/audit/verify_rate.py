"""How fast ``recstill verify`` reads, against SHA-256 alone on one core: a version of a few GB of made-up bytes."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from flows.auditing.verifying import verify
from flows.finalizing import FinishedRun, finalize
from tests.unit.flows.small_checkout import VERDICT, dvc, git

NAME = "big"
_FILE = 64 << 20
_ROUNDS = 3
_TIMES = 8
_CONTENT = bytes(_FILE)


def rates(folder: Path, size: int, package: Path) -> dict[str, float]:
    """Bytes a second.

    Args:
        folder: Where the checkout is made; it takes twice the size.
        size: Bytes of the version.
        package: A package, which every version has.

    Returns:
        ``sha256``: of one core, of bytes in memory. ``verify``: of the whole command's work, with as many threads as
        there are cores. ``one_thread``: with one. The same with ``_cpu`` behind: a second of processor time, which is
        right on a busy machine too.
    """
    root = _registered(folder, size, package)
    found: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], int]) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        done = work()
        found.setdefault(name, []).append(done / (time.perf_counter() - wall))
        found.setdefault(f"{name}_cpu", []).append(done / (time.process_time() - processor))

    def verified(workers: int | None) -> int:
        ended = verify(root, workers=workers)
        assert not ended.findings and ended.bytes > 0.9 * size
        return ended.bytes

    for _ in range(_ROUNDS):  # in turn, so that what else the machine does hits all alike
        timed("sha256", _hashed)
        timed("verify", lambda: verified(None))
        timed("one_thread", lambda: verified(1))
    return {name: max(values) for name, values in found.items()}


def _hashed() -> int:
    for _ in range(_TIMES):
        hashlib.sha256(_CONTENT).digest()
    return _TIMES * _FILE


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
