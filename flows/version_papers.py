"""What a version gets beside its package: its stages' signed statements as one bundle, and a bill of materials."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from components.provenance.bill_of_materials import Materials, bill_of_materials
from components.provenance.stage_statement import REQUIREMENTS, StageStatement, bundle
from components.serving.package_folder import BOM, BUNDLE, RECORD, SIGNATURE, PackageFolder
from components.storage.atomic import read_json
from components.storage.digests import file_digest


def version_papers(
    worktree: Path, name: str, version: int, *, commit: str, created: str, statements: Sequence[StageStatement]
) -> dict[str, bytes]:
    """Contents by file name of what lies beside the package; the same version gives the same bytes.

    Args:
        worktree: Of the finished run.
        name: Of the model.
        version: Its number.
        commit: That holds the run's lock.
        created: When that commit was made, ISO 8601.
        statements: Of all stages that the lock records.

    Raises:
        RecstillError: The package is damaged, or the bill would not be valid.
    """
    artifacts = worktree / "artifacts" / name
    package = PackageFolder(artifacts / "package")
    files = {file: file_digest(package.folder / file) for file in (RECORD, *package.record["files"])}
    source, pins = artifacts / "source.json", worktree / REQUIREMENTS
    lines = bundle(statements)
    bill = bill_of_materials(
        Materials(
            name=name,
            version=version,
            commit=commit,
            created=created,
            package=files[RECORD],
            files=files,
            record=package.record,
            signature=read_json(package.folder / SIGNATURE),
            source=read_json(source) if source.is_file() else {},
            statements=statements,
            bundle=hashlib.sha256(lines).hexdigest(),
            requirements=pins.read_text("utf-8") if pins.is_file() else "",
        )
    )
    return {BUNDLE: lines, BOM: bill}


def any_dirty(statements: Sequence[StageStatement]) -> bool | None:
    """Was one of the stages run while code was in no commit? None: that is not known of all."""
    marks = {one.dirty for one in statements}
    return True if True in marks else None if None in marks else False
