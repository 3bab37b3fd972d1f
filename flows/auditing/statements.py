"""The signed statements of the stages: right by themselves, there for every attested version, and what they know."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from components.errors import IntegrityError
from components.provenance.stage_statement import StageStatement, read_bundle, read_statement, statement_key
from components.storage.contract import MissingObjectError
from flows.auditing.audited import COPY, Audited
from flows.auditing.logs import kind_of
from flows.auditing.registered import AT_ONCE, Version

_STATEMENT = re.compile(r"provenance/([A-Za-z0-9_-]+)/([0-9a-f]{64})\.dsse\.json")
PROVENANCE = "provenance.intoto.jsonl"
"""The file of a release that holds the statements of all stages."""


def read_statements(audit: Audited) -> dict[str, StageStatement]:
    """Every statement of the store that is right, by entry; those that are not are told.

    Only the statements of the chosen versions are looked at, unless all are chosen.
    """
    users: dict[str, list[str]] = defaultdict(list)
    for version in audit.chosen:
        for run in audit.stages(version):
            users[run.entry].append(str(version))
    keys = [
        match
        for key in audit.places.in_store
        if (match := _STATEMENT.fullmatch(key)) and (audit.whole or match[2] in users)
    ]
    found: dict[str, StageStatement] = {}
    # One small request each, which take their time on a store that is far away.
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for match, outcome in zip(keys, threads.map(partial(_read, audit), keys), strict=True):
            if isinstance(outcome, StageStatement):
                found[outcome.entry] = outcome
            elif outcome:
                of = users.get(match[2], [])
                what = f"a statement of {match[1]}"
                audit.in_store(kind_of(outcome), match[0], what, outcome, _remedy(of), versions=of)
    return found


def _read(audit: Audited, match: re.Match[str]) -> StageStatement | str:
    """A statement, or what is wrong with it; empty when it has gone since it was listed."""
    key = match[0]
    try:
        envelope = audit.store.get(key)
        statement = read_statement(envelope, audit.keys, key)
        if (statement.scenario, statement.entry) != (match[1], match[2]):
            return f"it is the statement of {statement.address}, entry {statement.entry[:12]}"
        require_written_form(envelope)
    except MissingObjectError:
        return ""
    except IntegrityError as error:
        return error.message
    return statement


def check_bundles(audit: Audited, statements: dict[str, StageStatement]) -> None:
    """The bundle of every release that has one: each statement signed, about the version's own runs, and in the store.

    Args:
        audit: The audit.
        statements: Of the store, by entry; those of bundles are added.
    """
    for version in audit.chosen:
        if (bundled := _bundled(audit, version)) is None:
            continue
        entries = {run.entry: run.address for run in audit.stages(version)}
        for statement in bundled:
            key = statement_key(statement.scenario, statement.entry)
            if key not in audit.places.in_store:
                text = f"it is not in the store, and {PROVENANCE} of {version} has it"
                audit.in_store(
                    "missing",
                    key,
                    f"the statement of {statement.address}",
                    text,
                    _remedy([version]),
                    versions=[str(version)],
                )
            elif (there := statements.get(statement.entry)) and _same(there.envelope) != _same(statement.envelope):
                text = f"it is another one than {PROVENANCE} of {version} holds"
                audit.in_store(
                    "mismatch", key, f"the statement of {statement.address}", text, COPY, versions=[str(version)]
                )
            statements.setdefault(statement.entry, statement)
        if entries and (lost := sorted(set(entries) - {one.entry for one in bundled})):
            assert version.release is not None
            text = f"it has no statement of {', '.join(entries[entry] for entry in lost)}, which the lock records"
            audit.in_store("mismatch", version.release.key(PROVENANCE), PROVENANCE, text, COPY, versions=[str(version)])


def sha256_by_md5(statements: Iterable[StageStatement]) -> dict[str, str]:
    """What signatures vouch for, by DVC's names."""
    return {one.md5: one.sha256 for statement in statements for one in statement.subjects.values()}


def teacher_files(statements: Iterable[StageStatement]) -> dict[str, dict[str, str]]:
    """SHA-256 of the files of teachers by name, by the teacher's digest, where a statement says what it made."""
    found: dict[str, dict[str, str]] = {}
    for statement in statements:
        digest = statement.digests.get("teacher")
        folder = next((path for path, md5 in statement.outputs.items() if path.endswith("/teacher")), None)
        if digest and folder:
            prefix = f"{folder}/"
            found[digest] = {
                path.removeprefix(prefix): one.sha256
                for path, one in statement.subjects.items()
                if path.startswith(prefix)
            }
    return found


def require_written_form(envelope: bytes) -> None:
    """Refuse an envelope that says the same in other bytes than it was written in.

    Raises:
        IntegrityError: It is so.
    """
    if (json.dumps(json.loads(envelope), indent=2, sort_keys=True) + "\n").encode() != envelope:
        raise IntegrityError("it is not in the form in which it was written: somebody or something has changed it")


def _bundled(audit: Audited, version: Version) -> list[StageStatement] | None:
    if version.release is None or PROVENANCE not in version.release.files:
        return None
    key = version.release.key(PROVENANCE)
    try:
        content = audit.store.get(key, version.release.files[PROVENANCE])
    except (MissingObjectError, IntegrityError):
        return None  # told when its bytes are hashed
    try:
        return read_bundle(content, audit.keys, key)
    except IntegrityError as error:
        audit.in_store(kind_of(error.message), key, PROVENANCE, error.message, COPY, versions=[str(version)])
        return None


def _same(envelope: bytes) -> object:
    return json.loads(envelope)


def _remedy(of: Iterable[object]) -> str:
    if not list(of):
        return COPY
    return f"`recstill verify --repair` takes it from {PROVENANCE} of a release; else put it back from a copy."
