"""What the locks of registered versions want of DVC's remote, and their soft labels of the store."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from components.errors import IntegrityError
from components.soft_labels.manifest import MANIFEST_NAME, Manifest, read_manifest, record_name, written
from flows.auditing.audited import Audited
from flows.auditing.claims import Claim
from flows.auditing.registered import Version
from flows.locked_outputs import FOLDER, LOCK, listed_files, listing_md5

_MANIFEST = re.compile(r"artifacts/[^/]+/soft_labels/manifest\.json")
_LARGEST_MANIFEST = 1 << 30


def expect_outputs(audit: Audited, sha256: Mapping[str, str]) -> None:
    """Add to the ledger every object that the locks of the chosen versions name, and their soft labels.

    Args:
        audit: The audit.
        sha256: SHA-256 by MD5, as signed statements have them.
    """
    listings: dict[str, dict[str, str] | None] = {}
    manifests: dict[str, tuple[str, set[str]]] = {}
    for version in audit.chosen:
        for run in audit.stages(version):
            remedy = f"`recstill verify --repair` looks for another copy; {run.address} makes it again."
            for path, md5 in run.outputs.items():
                audit.ledger.add(_claim(version, md5, path, remedy, sha256.get(md5)))
                if md5.endswith(FOLDER):
                    for name, one in (members(audit, listings, md5) or {}).items():
                        audit.ledger.add(_claim(version, one, f"{path}/{name}", remedy, sha256.get(one)))
                if _MANIFEST.fullmatch(path):
                    manifests.setdefault(md5, (path, set()))[1].add(str(version))
    for md5, (path, versions) in manifests.items():
        _expect_labels(audit, md5, path, versions)


def tell_locks(audit: Audited) -> None:
    """Tell versions whose lock cannot be looked at."""
    for version in audit.chosen:
        if version.commit is None or audit.stages(version):
            continue
        if version.here:
            text = f"{LOCK} of commit {version.commit[:12]} is missing, damaged, or records no run of {version.name}"
            remedy = "`git fsck` names what is damaged; `git fetch` it from another clone."
            audit.in_git("corrupt", version.commit, f"{LOCK} of {version}", text, remedy, versions=[str(version)])
            continue
        text = f"commit {version.commit[:12]} is not in this repository: its bytes in DVC's remote were not looked at"
        # Of a model that nobody has a tag of here, it is another repository's that shares the store.
        mine = any(one.tag for one in audit.versions if one.name == version.name)
        audit.in_git(
            "missing",
            version.commit,
            f"the commit of {version}",
            text,
            "Fetch it from where the version was registered.",
            versions=[str(version)],
            severity="damage" if mine else "note",
        )


def _claim(version: Version, md5: str, path: str, remedy: str, sha256: str | None) -> Claim:
    return Claim("remote", md5, path, sha256, md5.removesuffix(FOLDER), remedy, {str(version)})


def members(audit: Audited, listings: dict[str, dict[str, str] | None], md5: str) -> dict[str, str] | None:
    """Names and MD5s of a folder's files; None when its listing is not what it should be, which hashing tells."""
    if md5 not in listings:
        listings[md5] = None
        content = _content(audit, md5)
        try:
            listings[md5] = listed_files(content) if content is not None else None
        except (ValueError, KeyError, TypeError, IntegrityError):
            claim, remote = Claim("remote", md5, "the listing of a folder", md5=md5), audit.places.remote
            problem = "its bytes are what its MD5 says, and are no listing of files"
            audit.findings.append(claim.finding("corrupt", remote.address if remote else "", problem))
    return listings[md5]


def _content(audit: Audited, md5: str) -> bytes | None:
    """A small object of the remote, if its bytes are right."""
    remote, listed = audit.places.remote, audit.places.in_remote.get(md5)
    if remote is None or listed is None or listed.size > _LARGEST_MANIFEST:
        return None
    try:
        content = remote.read(md5)
    except OSError:
        return None
    return content if listing_md5(content).removesuffix(FOLDER) == md5.removesuffix(FOLDER) else None


def _expect_labels(audit: Audited, md5: str, path: str, versions: set[str]) -> None:
    """The cache of a manifest: itself, its parts and their records."""
    content = _content(audit, md5) or _same_in_store(audit, md5)
    if content is None:
        return
    try:
        manifest = read_manifest(content, path)
    except IntegrityError as error:
        remote = audit.places.remote
        audit.findings.append(
            Claim("remote", md5, path, versions=versions).finding(
                "corrupt", remote.address if remote else "", error.message
            )
        )
        return
    remedy = "`recstill verify --repair` looks for another copy; `recstill soft-labels build --force` makes it again."
    for key, what, held in _objects(manifest, content):
        digest = held if isinstance(held, str) else hashlib.sha256(held).hexdigest()
        known = held if isinstance(held, bytes) else None
        claim = Claim("store", key, f"{what} of {path}", digest, None, remedy, set(versions), known)
        audit.ledger.add(claim)


def _same_in_store(audit: Audited, md5: str) -> bytes | None:
    """The store's own manifest with that MD5, when DVC's remote has it no more."""
    for key, listed in audit.places.in_store.items():
        if key.startswith("soft-labels/") and key.endswith(MANIFEST_NAME) and listed.size < _LARGEST_MANIFEST:
            try:
                content = audit.store.get(key)
            except IntegrityError:
                continue
            if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5:
                return content
    return None


def _objects(manifest: Manifest, content: bytes) -> list[tuple[str, str, str | bytes]]:
    """Keys of a cache, what they are, and their SHA-256 or their bytes."""
    found: list[tuple[str, str, str | bytes]] = [(manifest.key(MANIFEST_NAME), "the store's copy", content)]
    for part in manifest.parts:
        found.append((manifest.key(part.name), f"rows from {part.first:,} on", part.sha256))
        found.append((manifest.key(record_name(part.number)), f"the record of {part.name}", written(part)))
    return found
