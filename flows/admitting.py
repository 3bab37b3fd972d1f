"""What a finished run has to be before it becomes a version: let through by the gate, and of nothing recalled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import IntegrityError
from components.storage.contract import ObjectStore

if TYPE_CHECKING:
    from components.provenance.stage_run import StageStatement


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


def refuse_recalled_run(
    checkout: Path, store: ObjectStore, name: str, package: Path, statements: Iterable[StageStatement]
) -> None:
    """Refuse a run that came of something recalled, such as a teacher that the same data gave again.

    Args:
        checkout: The checkout.
        store: Where recalls lie.
        name: Of the scenario.
        package: Of the run.
        statements: Of its stages: a recall may name any file that one of them read, ran or made.

    Raises:
        RecalledError: It has.
        IntegrityError: The log of recalls is not whole.
        StorageError: The store cannot be read.
    """
    from components.provenance.recalls import recalls_of, refuse_recalled
    from components.serving.origins import statement_ids
    from components.serving.package_folder import RECORD
    from components.storage.atomic import read_json
    from components.storage.digests import file_digest
    from flows.auditing.recalled import recalls_now

    ids = {file_digest(package / RECORD), *map(str, (read_json(package / RECORD).get("lineage") or {}).values())}
    ids |= {digest for one in statements for digest in statement_ids(one)}
    refuse_recalled(f"what the run of {name} came from", recalls_of(ids, recalls_now(checkout, store).recalls))
