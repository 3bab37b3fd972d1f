"""What a finished run has to be before it becomes a version: let through by the gate, and of nothing recalled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.errors import IntegrityError
from components.storage.contract import ObjectStore


def require_judged(verdict: Mapping[str, Any], package: Path) -> None:
    """Refuse a package that the gate has not let through.

    Raises:
        IntegrityError: The verdict is a refusal, or about another package.
    """
    from components.serving.package_folder import RECORD
    from components.storage.digests import file_digest

    if verdict.get("passed") is not True:
        raise IntegrityError("the gate has not let this run through", "Nothing was registered.")
    if verdict.get("package") not in (None, file_digest(package / RECORD)):
        raise IntegrityError("the gate's verdict is about another package than the run's", "Retrain again.")


def refuse_recalled_run(checkout: Path, store: ObjectStore, name: str, package: Path) -> None:
    """Refuse a run that came of something recalled, such as a teacher that the same data gave again.

    Raises:
        RecalledError: It has.
        IntegrityError: The log of recalls is not whole.
        StorageError: The store cannot be read.
    """
    from components.provenance.recalls import recalls_of, refuse_recalled
    from components.serving.package_folder import RECORD
    from components.storage.atomic import read_json
    from components.storage.digests import file_digest
    from flows.auditing.recalled import recalls_now

    ids = {file_digest(package / RECORD), *map(str, (read_json(package / RECORD).get("lineage") or {}).values())}
    refuse_recalled(f"what the run of {name} came from", recalls_of(ids, recalls_now(checkout, store).recalls))
