"""Lock, statements, release and bill of materials of every version against each other."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.errors import IntegrityError
from components.provenance.agreement import disagreements
from components.provenance.bill_of_materials import bill_problems
from components.provenance.stage_statement import StageStatement
from components.serving.package_folder import BOM
from components.serving.releases import Release, attestation_key
from components.storage.contract import MissingObjectError
from flows.auditing.audited import COPY, Audited

_VALID = ".recstill/audit/valid-bills-1.6"


def check_agreement(audit: Audited, statements: Mapping[str, StageStatement]) -> None:
    """Tell what the records of a version say differently of one thing, and bills that are not valid.

    Args:
        audit: The audit.
        statements: Those that are right by themselves, by entry. Where one is not, that is told already, and the
            version is not compared.
    """
    for version in audit.chosen:
        release, runs = version.release, audit.stages(version)
        if release is None:
            continue
        bill = _bill(audit, release) if BOM in release.files else None
        known = [statements[run.entry] for run in runs if run.entry in statements]
        if not runs or len(known) < len(runs):
            continue
        for line in disagreements({run.address: run.record for run in runs}, known, release, bill):
            key, what = attestation_key(release.name, release.version), f"the records of {version}"
            remedy = "Each is signed or hashed by itself, so one was made of another run. Do not deploy this version."
            audit.in_store("mismatch", key, what, line, remedy, versions=[str(version)])


def _bill(audit: Audited, release: Release) -> dict[str, Any] | None:
    """The bill of a release, if its bytes are right; that they are not is told when they are hashed."""
    key = release.key(BOM)
    try:
        content = audit.store.get(key, release.files[BOM])
    except (MissingObjectError, IntegrityError):
        return None
    valid = _valid(audit.root / _VALID)
    if release.files[BOM] not in valid:
        problems = bill_problems(content)
        for problem in problems:
            audit.in_store("corrupt", key, BOM, problem, COPY, versions=[str(release)])
        if not problems:
            _remember(audit.root / _VALID, release.files[BOM])
    try:
        return dict(json.loads(content))
    except ValueError:
        return None


def _valid(path: Path) -> set[str]:
    """Bills by digest that were found valid before: the same bytes stay valid, and the schema takes a while."""
    try:
        return set(path.read_text("utf-8").split())
    except OSError:
        return set()


def _remember(path: Path, digest: str) -> None:
    # What cannot be remembered is looked at again.
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(f"{digest}\n")
