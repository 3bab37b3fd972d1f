"""Damaged and missing objects put back from copies, each hashed before and after; told one by one.

Signed records have no digest to go by: those of another store are taken when their signatures, chains and places are
right there. Tags are made again from the signed release, when something else confirms it.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from components.errors import IntegrityError, RecstillError
from components.provenance.recalls import recall_log
from components.provenance.receipts import receipt_log
from components.provenance.signed_log import SignedLog
from components.provenance.stage_statement import StageStatement, find_statement
from components.serving.pointer import switch_log
from components.serving.releases import attestation_key, read_release
from components.storage.contract import MissingObjectError, ObjectStore
from flows.auditing.audited import Audited
from flows.auditing.claims import Claim
from flows.auditing.copies import Copies, both_digests
from flows.auditing.findings import Finding
from flows.auditing.statements import require_written_form
from flows.registry import register, version_tag
from flows.repository import git, without_credentials

_STATEMENT = re.compile(r"provenance/([A-Za-z0-9_-]+)/([0-9a-f]{64})\.dsse\.json")
_ATTESTATION = re.compile(r"releases/([A-Za-z0-9_-]+)/v([1-9]\d*)/attestation\.dsse\.json")
_SWITCH = re.compile(r"releases/([A-Za-z0-9_-]+)/prod/\d{8}\.dsse\.json")
_RECALL = re.compile(r"recalls/\d{8}\.dsse\.json")
_RECEIPT = re.compile(r"receipts/\d{8}\.dsse\.json")
_TEACHER = re.compile(r"teachers/([0-9a-f]{64})/manifest\.json")


class Repair(NamedTuple):
    """What became of one damage.

    Attributes:
        finding: The damage.
        source: Where the right bytes were; empty: nowhere, it is as it was.
    """

    finding: Finding
    source: str

    @property
    def done(self) -> bool:
        """Whether the object is whole again."""
        return bool(self.source)

    def __str__(self) -> str:
        name = f"{self.finding.what} ({self.finding.place} {self.finding.object})"
        return f"{name}: put back from {self.source}" if self.done else f"{name}: no sound copy was found"


def repair(
    audit: Audited,
    findings: Sequence[Finding],
    copies: Copies,
    statements: Iterable[StageStatement],
    say: Callable[[Repair], None] = lambda _: None,
) -> list[Repair]:
    """Put back whatever there is a sound copy of.

    Args:
        audit: What was audited, while its places are open.
        findings: Of that audit.
        copies: Where to look.
        statements: Sound ones, of the store and of bundles.
        say: Is told each repair as it is made.

    Raises:
        StorageError: A place cannot be written.
    """
    by_entry = {statement.entry: statement for statement in statements}
    done: list[Repair] = []
    for name in dict.fromkeys((one.place, one.object) for one in findings if one.severity == "damage"):
        finding = next(one for one in findings if (one.place, one.object) == name)
        claim = audit.ledger.get(*name)
        if finding.place == "git":
            source = _tag(audit, finding, copies.stores)
        elif claim is not None:
            source = _bytes(audit, claim, copies)
        else:
            source = _record(audit, finding.object, copies.stores, by_entry)
        done.append(Repair(finding, source))
        say(done[-1])
    return done


def _bytes(audit: Audited, claim: Claim, copies: Copies) -> str:
    """Put back an object whose digest is known."""
    with tempfile.TemporaryDirectory(prefix="recstill-") as folder:
        for number, copy in enumerate(copies.of(claim)):
            path = Path(folder) / str(number)
            try:
                copy.save(path)
                md5, sha256 = both_digests(path)
            except (OSError, RecstillError):
                path.unlink(missing_ok=True)
                continue
            if claim.sha256 not in (None, sha256) or claim.md5 not in (None, md5):
                path.unlink(missing_ok=True)
                continue
            if claim.place == "remote":
                if audit.places.remote is None:
                    return ""
                audit.places.remote.put(claim.object, path)
                if audit.places.remote.digest(claim.object, "sha256") != sha256:
                    raise IntegrityError(f"{claim.object} was written to {audit.places.remote.address}, and is damaged")
            else:
                audit.store.put(claim.object, path, sha256)
                audit.store.check(claim.object, sha256)
            return copy.where
    return ""


def _record(audit: Audited, key: str, stores: Sequence[ObjectStore], statements: dict[str, StageStatement]) -> str:
    """Put back a signed record, or the manifest of a teacher."""
    if (match := _STATEMENT.fullmatch(key)) and (known := statements.get(match[2])) and known.scenario == match[1]:
        _put(audit.store, key, _as_written(known.envelope))
        return "the release that bundles it"
    for store in stores:
        try:
            content = _sound(audit, store, key)
        except (RecstillError, ValueError, KeyError, TypeError):
            continue
        if content is not None:
            _put(audit.store, key, content)
            return f"{key} in {without_credentials(store.address)}"
    return ""


def _sound(audit: Audited, store: ObjectStore, key: str) -> bytes | None:
    """The record of another store, if all that can be checked of it is right."""
    found: bytes | None = None
    if match := _ATTESTATION.fullmatch(key):
        found = _attestation(audit, store, match[1], int(match[2]))
    elif match := _STATEMENT.fullmatch(key):
        if statement := find_statement(store, match[1], match[2], audit.keys):
            require_written_form(statement.envelope)
            found = statement.envelope
    elif match := _SWITCH.fullmatch(key):
        found = _of_log(switch_log(store, match[1]), audit, key)
    elif _RECALL.fullmatch(key):
        found = _of_log(recall_log(store), audit, key)
    elif _RECEIPT.fullmatch(key):
        found = _of_log(receipt_log(store), audit, key)
    elif match := _TEACHER.fullmatch(key):
        found = _teacher(store, match[1], key)
    return found


def _attestation(audit: Audited, store: ObjectStore, name: str, number: int) -> bytes | None:
    """An attestation that tag and log of switches agree to, where they say anything."""
    release = read_release(store, name, number, audit.keys)
    version = next(one for one in audit.versions if (one.name, one.number) == (name, number))
    told = set(version.attestations)
    if version.tag and version.tag.attestation:
        told.add(version.tag.attestation)
    return store.get(attestation_key(name, number)) if not told or release.attestation in told else None


def _of_log(log: SignedLog, audit: Audited, key: str) -> bytes | None:
    """An entry of a log that is whole over there."""
    log.entries(audit.keys)
    try:
        return log.store.get(key)
    except MissingObjectError:
        return None


def _teacher(store: ObjectStore, digest: str, key: str) -> bytes | None:
    """The manifest of a teacher that is whole over there."""
    from components.training.teacher_store import fetch_teacher

    with tempfile.TemporaryDirectory(prefix="recstill-") as folder:
        fetch_teacher(store, digest, Path(folder) / "teacher")
    return store.get(key)


def _tag(audit: Audited, finding: Finding, stores: Sequence[ObjectStore]) -> str:
    """Make the tag of a version again, as its release says, when another record says the same."""
    tag = finding.object.removeprefix("refs/tags/")
    version = next((one for one in audit.versions if version_tag(one.name, one.number) == tag), None)
    if version is None or version.release is None or not version.here:
        return ""
    release = version.release
    forged = version.tag is not None
    confirmed = release.attestation in version.attestations or (
        forged and version.tag is not None and version.tag.attestation == release.attestation
    )
    confirmed = confirmed or any(_has(store, release.name, release.version, release.attestation) for store in stores)
    # A tag that is gone contradicts nothing; one that says otherwise may be right, unless a third record decides.
    if forged and not confirmed:
        return ""
    if forged:
        git(audit.root, "tag", "-d", tag)
    register(audit.root, release.name, release.version, release.commit, release.attestation)
    return f"the signed release {attestation_key(release.name, release.version)}"


def _has(store: ObjectStore, name: str, version: int, attestation: str) -> bool:
    try:
        return hashlib.sha256(store.get(attestation_key(name, version))).hexdigest() == attestation
    except RecstillError:
        return False


def _as_written(envelope: bytes) -> bytes:
    return (json.dumps(json.loads(envelope), indent=2, sort_keys=True) + "\n").encode()


def _put(store: ObjectStore, key: str, content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()
    store.put(key, content, digest)
    store.check(key, digest)
