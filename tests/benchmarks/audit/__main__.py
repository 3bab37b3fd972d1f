"""The measures of the audit, as ``name=value`` lines: ``make bench-audit``.

``DAMAGES`` (300) seeded damages, each to a copy of its own of a checkout with three versions of two models: how many
``recstill verify`` finds and names, how many DVC's own commands and a look at names and sizes notice, how many
findings name what was not damaged, and what a second store repairs (of each ``REPAIR_EVERY``-th, 1). ``GIGABYTES`` (3)
for the rate of reading, ``VERSIONS`` (500) in history for trace and impact, and the synthetic scenario made twice
(``REPRODUCE=0`` leaves it).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from flows.auditing.findings import Finding
from flows.auditing.verifying import verify, verify_and_repair
from tests.benchmarks.audit.dvc_commands import said_by_dvc
from tests.benchmarks.audit.history import build, measure
from tests.benchmarks.audit.verify_rate import rates
from tests.unit.flows.auditing.damages import STORE, Damage, seeded_damages
from tests.unit.flows.auditing.many_versions import copy_of, many_versions, plain_environment
from tests.unit.flows.auditing.naive import sizes_only

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
DAMAGES = int(os.environ.get("DAMAGES", "300"))
SEED = int(os.environ.get("SEED", "0"))
REPAIR_EVERY = int(os.environ.get("REPAIR_EVERY", "1"))
GIGABYTES = float(os.environ.get("GIGABYTES", "3"))
VERSIONS = int(os.environ.get("VERSIONS", "500"))
_CLEAN_COPIES = 5
Result = TypeVar("Result")


def damaged(root: Path, folder: Path) -> None:
    """Print what is found of damages to copies of a checkout."""
    second = folder / "second"
    shutil.copytree(root / STORE, second)
    whole = _in_a_copy(root, folder, None, said_by_dvc)
    clean = sum(len(_in_a_copy(root, folder, None, lambda copy: verify(copy).findings)) for _ in range(_CLEAN_COPIES))
    counts: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for number, damage in enumerate(seeded_damages(root, DAMAGES, SEED), start=1):
        kinds[damage.kind] += 1
        findings, naive, by_dvc = _in_a_copy(
            root, folder, damage, lambda copy: (verify(copy).damaged, sizes_only(copy), said_by_dvc(copy))
        )
        hits = [one for one in findings if names(damage, one)]
        counts["found"] += bool(hits)
        counts["false_alarms"] += len(findings) - len(hits)
        counts["dvc_found"] += by_dvc != whole
        counts["naive_found"] += any(names(damage, one) for one in naive)

        def repaired(copy: Path) -> bool:
            shutil.rmtree(copy / ".dvc/cache")
            shutil.rmtree(copy / "artifacts")
            return not verify_and_repair(copy, addresses=[str(second)])[0].damaged

        if number % REPAIR_EVERY:
            counts["not_tried_to_repair"] += 1
        elif damage.kind == "forge: new":  # a tag of what never was is in no store
            counts["not_repairable"] += 1
        else:
            counts["repaired"] += _in_a_copy(root, folder, damage, repaired)
        if not hits or len(findings) > len(hits):
            print(f"  {'missed' if not hits else 'also found'}: {damage}: {'; '.join(map(str, findings))}")
        if number % 25 == 0:
            print(f"  {number} of {DAMAGES}: {dict(counts)}", flush=True)
    print("  " + ", ".join(f"{kind}: {count}" for kind, count in sorted(kinds.items())))
    print(f"damages={DAMAGES}")
    for name in (
        "found",
        "false_alarms",
        "dvc_found",
        "naive_found",
        "repaired",
        "not_repairable",
        "not_tried_to_repair",
    ):
        print(f"{name}={counts[name] + (clean if name == 'false_alarms' else 0)}", flush=True)


def names(damage: Damage, finding: Finding) -> bool:
    """Whether a finding names the damaged object."""
    return any(name in f"{finding.object} {finding.problem}" for name in damage.named)


def _in_a_copy(root: Path, folder: Path, damage: Damage | None, look: Callable[[Path], Result]) -> Result:
    copy, before = folder / "copy", Path.cwd()
    copy_of(root, copy)
    try:
        if damage is not None:
            damage.apply(copy)
        os.chdir(copy)
        return look(copy)
    finally:
        os.chdir(before)
        shutil.rmtree(copy)


def reproduced(folder: Path) -> bool:
    """Whether the synthetic scenario, registered and made again, is the same to the last bit."""
    root = folder / "clone"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RECSTILL_")}
    environment["PATH"] = f"{BIN}{os.pathsep}{environment.get('PATH', '')}"

    def call(*command: str) -> int:
        return subprocess.run(command, cwd=root, env=environment, stdout=sys.stderr, check=False).returncode

    subprocess.run(["git", "clone", "-q", str(ROOT), str(root)], check=True)
    for setting in (("user.name", "Tess Ter"), ("user.email", "tess@example.org")):
        call("git", "config", *setting)
    call("git", "remote", "remove", "origin")
    recstill = str(BIN / "recstill")
    return call(recstill, "retrain", "synthetic") == 0 and call(recstill, "reproduce", "synthetic@v1") == 0


def main() -> None:
    """Measure, print."""
    with tempfile.TemporaryDirectory(prefix="recstill-") as name, plain_environment():
        folder = Path(name)
        started = time.perf_counter()
        root = many_versions(folder / "registered") if DAMAGES or GIGABYTES else Path()
        if DAMAGES:
            damaged(root, folder)
            print(f"  {time.perf_counter() - started:.0f} s")
        if VERSIONS:
            (folder / "history").mkdir()
            for figure, value in measure(build(folder / "history", VERSIONS)).items():
                print(f"{figure}={value:.2f}", flush=True)
        if GIGABYTES:
            found = rates(folder, int(GIGABYTES * 1e9), root / "artifacts/tiny/package")
            print(f"sha256_mb_s={found['sha256'] / 1e6:.0f}")
            print(f"verify_mb_s={found['verify'] / 1e6:.0f}")
            print(f"verify_rate_ratio={found['verify'] / found['sha256']:.2f}")
            print(f"verify_rate_ratio_one_thread={found['one_thread'] / found['sha256']:.2f}")
            print(f"verify_rate_ratio_cpu={found['one_thread_cpu'] / found['sha256_cpu']:.2f}", flush=True)
        if os.environ.get("REPRODUCE", "1") != "0":
            print(f"reproduce_identical={int(reproduced(folder))}")


if __name__ == "__main__":
    main()
