"""What releases, packages and kept teachers want of the store; each says by digests what its files have to be."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Mapping

from components.errors import IntegrityError
from components.serving.package_folder import ATTESTATION, RECORD
from components.serving.releases import attestation_key
from components.storage.contract import MissingObjectError
from flows.auditing.audited import COPY, Audited
from flows.auditing.claims import Claim
from flows.auditing.logs import kind_of
from flows.auditing.registered import Version

_ADDRESSED = re.compile(r"releases/([A-Za-z0-9_-]+)/v([1-9]\d*)/[a-z]+-([0-9a-f]{64})\.[a-z.]+")
_OF_RELEASE = re.compile(r"releases/([A-Za-z0-9_-]+)/v([1-9]\d*)/(.+)")
_PACKAGE = re.compile(r"packages/([0-9a-f]{64})/(.+)")
_TEACHER = re.compile(r"teachers/([0-9a-f]{64})/(.+)")
_MANIFEST = "manifest.json"
_SIGNED_ANEW = "Put the signed attestation back from a copy; until then do not deploy this version."


def expect_releases(audit: Audited) -> None:
    """Add to the ledger the files of the chosen releases; tell attestations that cannot be trusted."""
    for version in audit.chosen:
        if version.problem is not None or version.release is None:
            _tell(audit, version)
            continue
        release = version.release
        for file, digest in release.files.items():
            remedy = f"{COPY} {RECORD} and what it lists lie in artifacts/{release.name}/package too."
            audit.ledger.add(Claim("store", release.key(file), file, digest, None, remedy, {str(version)}))
    _expect_addressed(audit)
    _expect_packages(audit)


def expect_teachers(audit: Audited, sha256: Mapping[str, Mapping[str, str]]) -> None:
    """Add to the ledger the files of the teachers that are kept for warm starts.

    Args:
        audit: The audit.
        sha256: Of a teacher's files by name, by the teacher's digest, as signed statements have them.
    """
    kept: dict[str, set[str]] = defaultdict(set)
    for key in audit.places.in_store:
        if found := _TEACHER.fullmatch(key):
            kept[found[1]].add(found[2])
    users: dict[str, set[str]] = defaultdict(set)
    for version in audit.versions:
        if version.release is not None and (digest := version.release.lineage.get("teacher")):
            users[digest].add(str(version))
    for digest, names in kept.items():
        of = users.get(digest, set())
        if not audit.whole and not of & {str(version) for version in audit.chosen}:
            continue
        what = f"teacher {digest[:12]}"
        key = f"teachers/{digest}/{_MANIFEST}"
        files = _manifest_of(audit, key, what, of)
        if files is None:
            continue
        for name, said in sha256.get(digest, {}).items():
            if files.get(name) != said:
                problem = f"it says another SHA-256 of {name} than the signed statement of the stage that made it"
                audit.in_store("mismatch", key, f"the manifest of {what}", problem, versions=sorted(of))
        for name, one in files.items():
            audit.ledger.add(Claim("store", f"teachers/{digest}/{name}", f"{name} of {what}", one, versions=set(of)))
        for name in sorted(names - set(files) - {_MANIFEST}):
            audit.in_store(
                "orphan", f"teachers/{digest}/{name}", what, "its manifest does not list it", severity="note"
            )


def _tell(audit: Audited, version: Version) -> None:
    """What is wrong with an attestation: not there, damaged, of somebody else, or of another version."""
    key, problem = attestation_key(version.name, version.number), version.problem
    what, of = f"the attestation of {version}", [str(version)]
    if isinstance(problem, MissingObjectError):
        if version.tag is not None and version.tag.attestation is None:
            text = f"it registers {version}, which is not in the store, and names no attestation"
            audit.in_git("forged", f"refs/tags/{version.tag.name}", f"the tag {version.tag.name}", text,
                         f"Somebody made it by hand; if so: `git tag -d {version.tag.name}`.", versions=of)  # fmt: skip
        elif version.tag is None and not version.attestations:
            # Files of a registration that was given up before its attestation was written: no version, no harm.
            return
        else:
            named = "its tag" if version.tag else "the log of what was live"
            audit.in_store(
                "missing", key, what, f"it is not in the store, and {named} names it", _SIGNED_ANEW, versions=of
            )
        return
    text = problem.message if problem else ""
    audit.in_store(kind_of(text), key, what, text, _SIGNED_ANEW, versions=of)


def _expect_addressed(audit: Audited) -> None:
    """Files of a release's own folder: their names hold their digests, whoever refers to them."""
    chosen = {(version.name, version.number): version for version in audit.chosen}
    for key in audit.places.in_store:
        if (found := _OF_RELEASE.fullmatch(key)) is None or (found[1], int(found[2])) not in chosen:
            continue
        version = chosen[found[1], int(found[2])]
        if match := _ADDRESSED.fullmatch(key):
            known = ("store", key) in audit.ledger
            audit.ledger.add(Claim("store", key, found[3], match[3], versions={str(version)} if known else set()))
            if not known and version.release is not None:
                text = "the attestation does not list it: another writer of this version was faster"
                audit.in_store("orphan", key, found[3], text, "It does no harm.", severity="note")
        elif found[3] != ATTESTATION:
            text = f"it lies among the files of {version}, and the attestation does not list it"
            audit.in_store(
                "orphan", key, found[3], text, "Nobody reads it. Find out who put it there.", versions=[str(version)]
            )


def _expect_packages(audit: Audited) -> None:
    """Packages by their own record, whose digest is their name: a version whose attestation is gone has one too."""
    files: dict[str, set[str]] = defaultdict(set)
    for key in audit.places.in_store:
        if found := _PACKAGE.fullmatch(key):
            files[found[1]].add(found[2])
    of: dict[str, set[str]] = defaultdict(set)
    for version in audit.versions:
        if version.release is not None:
            of[version.release.package].add(str(version))
    chosen = {version.release.package for version in audit.chosen if version.release is not None}
    for package, names in files.items():
        if package not in chosen and not audit.whole:
            continue
        key = f"packages/{package}/{RECORD}"
        listed = _listed(audit, key, package) if RECORD in names else None
        if RECORD not in names and not of[package]:
            text = "a package without its record, and no release names it: its writer was killed"
            audit.in_store(
                "orphan", f"packages/{package}", "a package", text, "`recstill gc` removes it.", severity="note"
            )
        if listed is None:
            # What is missing or corrupt of a package that a release names is told by its claims.
            audit.ledger.add(Claim("store", key, RECORD, package, versions=set(of[package])))
            continue
        audit.ledger.add(Claim("store", key, RECORD, package, versions=set(of[package])))
        for name, digest in listed.items():
            claim = Claim("store", f"packages/{package}/{name}", name, digest, versions=set(of[package]))
            if of[package] or name in names or _expected_without_release(audit):
                audit.ledger.add(claim)
        for name in sorted(names - set(listed) - {RECORD}):
            text = f"{RECORD} of this package does not list it"
            audit.in_store("orphan", f"packages/{package}/{name}", name, text,
                           "Nobody reads it. Find out who put it there.", versions=sorted(of[package]))  # fmt: skip
        if not of[package] and not _expected_without_release(audit):
            text = "no release names this package"
            audit.in_store(
                "orphan", f"packages/{package}", "a package", text, "`recstill gc` removes it.", severity="note"
            )


def _expected_without_release(audit: Audited) -> bool:
    """Whether some attestation cannot be read, so that a package without a release may be its."""
    return any(version.release is None for version in audit.versions)


def _listed(audit: Audited, key: str, package: str) -> dict[str, str] | None:
    try:
        content = audit.store.get(key)
        if hashlib.sha256(content).hexdigest() != package:
            return None
        return {str(name): str(entry["sha256"]) for name, entry in json.loads(content)["files"].items()}
    except (MissingObjectError, IntegrityError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _manifest_of(audit: Audited, key: str, what: str, of: set[str]) -> dict[str, str] | None:
    if key not in audit.places.in_store:
        text = "it is kept without a manifest: its writer was killed, or the manifest is gone"
        audit.in_store("missing", key, f"the manifest of {what}", text,
                       "The next retraining that keeps this teacher writes it again.", versions=sorted(of),
                       severity="damage" if of else "note")  # fmt: skip
        return None
    try:
        files = json.loads(audit.store.get(key))["files"]
        return {str(name): str(one) for name, one in files.items()}
    except MissingObjectError:
        return None
    except (IntegrityError, ValueError, KeyError, TypeError, AttributeError):
        audit.in_store("corrupt", key, f"the manifest of {what}", "it is no manifest", versions=sorted(of))
        return None
