"""What one run of one stage read and made, as a signed statement in the store.

``provenance/<scenario>/<entry>.dsse.json``. An entry is what ``dvc.lock`` records of the stage (command, dependencies,
parameters, outputs); its digest names the statement, so that whoever has a lock finds what was attested about it. MD5
is DVC's name of bytes; beside it stands the SHA-256 that the signature vouches for.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from components.errors import IntegrityError
from components.provenance.signing import PublicKey, SigningKey, sign, verified
from components.provenance.slsa_form import BUILD_TYPE, REQUIREMENTS, SHA256, SLSA, STATEMENT, build, parsed
from components.provenance.stage_run import (
    FOLDER,
    Attached,
    FileDigests,
    StageStatement,
    dependency_mark,
    entry_id,
    folder_hash,
    is_code,
    of_lock_entry,
)
from components.storage.contract import MissingObjectError, ObjectStore

__all__ = [
    "BUILD_TYPE",
    "FOLDER",
    "PAYLOAD_TYPE",
    "REQUIREMENTS",
    "SLSA",
    "STATEMENT",
    "Attached",
    "FileDigests",
    "StageStatement",
    "build",
    "bundle",
    "dependency_mark",
    "entry_id",
    "find_statement",
    "folder_hash",
    "is_code",
    "of_lock_entry",
    "payload_of",
    "publish_statement",
    "read_bundle",
    "read_statement",
    "signed",
    "statement_key",
]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_SCENARIO = re.compile(r"[A-Za-z0-9_-]+")


def statement_key(scenario: str, entry: str) -> str:
    """Where the statement of an entry lies in the store.

    Raises:
        IntegrityError: That is no scenario or no entry.
    """
    if not _SCENARIO.fullmatch(scenario) or not SHA256.fullmatch(entry):
        raise IntegrityError(f"{scenario[:100]!r}, {entry[:100]!r} name no statement")
    return f"provenance/{scenario}/{entry}.dsse.json"


def signed(statement: StageStatement, key: SigningKey) -> StageStatement:
    """The statement with its signature; ed25519 is deterministic, so the same facts and key give the same bytes.

    Raises:
        IntegrityError: It has no subject: a statement about nothing is none.
    """
    if not statement.subjects:
        raise IntegrityError(f"{statement.address} has no output that could be attested")
    payload = json.dumps(build(statement), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    envelope = sign(payload, PAYLOAD_TYPE, key)
    return replace(statement, signed_by=key.public.id, envelope=envelope)


def publish_statement(store: ObjectStore, statement: StageStatement, key: SigningKey, *, instead: bool = False) -> bool:
    """Sign a statement and put it into the store, unless its entry has one; whether this call did.

    Args:
        store: Where to.
        statement: What is to be attested.
        key: Signs.
        instead: Put it in the place of one that is there, which the caller has found to be nobody's.

    Raises:
        IntegrityError: It has no subject.
        StorageError: The store cannot be written.
    """
    where = statement_key(statement.scenario, statement.entry)
    envelope = signed(statement, key).envelope
    digest = hashlib.sha256(envelope).hexdigest()
    if instead:
        store.put(where, envelope, digest)
        return True
    return store.put_if_absent(where, envelope, digest)


def read_statement(envelope: bytes, keys: Sequence[PublicKey], what: str) -> StageStatement:
    """A statement out of its envelope, whose signature is checked.

    Args:
        envelope: As the store or a line of a bundle has it.
        keys: Whose signatures count.
        what: For messages: what it is about.

    Raises:
        IntegrityError: No trusted key has signed it, or it is no statement about a stage.
    """
    payload, signer = verified(envelope, PAYLOAD_TYPE, keys, what)
    try:
        found = parsed(json.loads(payload))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise IntegrityError(f"the statement of {what} is signed, but is none about a stage of Recstill") from None
    return replace(found, signed_by=signer, envelope=envelope)


def find_statement(store: ObjectStore, scenario: str, entry: str, keys: Sequence[PublicKey]) -> StageStatement | None:
    """The statement of an entry; None when there is none.

    Raises:
        IntegrityError: It is damaged, of another entry, or no trusted key has signed it.
        StorageError: The store cannot be read.
    """
    where = statement_key(scenario, entry)
    try:
        envelope = store.get(where)
    except MissingObjectError:
        return None
    found = read_statement(envelope, keys, where)
    if (found.scenario, found.entry) != (scenario, entry):
        raise IntegrityError(f"{where} in {store.address} is the statement of {found.address}, entry {found.entry}")
    return found


def bundle(statements: Iterable[StageStatement]) -> bytes:
    """Signed statements as an in-toto bundle (JSON Lines), in the order given; the same ones give the same bytes."""
    lines = [json.dumps(json.loads(one.envelope), sort_keys=True, separators=(",", ":")) for one in statements]
    return "".join(f"{line}\n" for line in lines).encode()


def read_bundle(content: bytes, keys: Sequence[PublicKey], what: str) -> list[StageStatement]:
    """The statements of a bundle, in its order; each one's signature is checked.

    Raises:
        IntegrityError: A line is no statement that a trusted key has signed.
    """
    lines = [line for line in content.splitlines() if line.strip()]
    return [read_statement(line, keys, f"{what}, line {number}") for number, line in enumerate(lines, start=1)]


def payload_of(envelope: bytes) -> dict[str, Any]:
    """The statement in an envelope without a look at its signature: for those who have checked it, and for tools."""
    return dict(json.loads(base64.b64decode(json.loads(envelope)["payload"])))
