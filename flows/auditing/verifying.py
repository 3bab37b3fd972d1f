"""Every byte of every registered version, read and hashed, wherever it lies; and every record against the others.

``dvc.lock`` of the commit that a version is of says which bytes DVC's remote must have. The signed attestation says
which files the store must have, the manifest of soft labels which parts. Tags, logs and attestations name each other.
An object that many versions share is read once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from components.errors import SettingsError
from components.provenance.signing import PublicKey, trusted_keys
from flows.auditing.audited import Audited
from flows.auditing.claims import Claim
from flows.auditing.erased_objects import without_erased
from flows.auditing.findings import Finding, damages, in_order
from flows.auditing.hashing import Places, check_all
from flows.auditing.journal import JOURNAL, Journal
from flows.auditing.lock_history import LockHistory
from flows.auditing.logs import check_logs, live_attestations
from flows.auditing.orphans import tell_orphans
from flows.auditing.outputs import expect_outputs, tell_locks
from flows.auditing.packages import expect_releases, expect_teachers
from flows.auditing.registered import Version, read_tags, registered_versions
from flows.auditing.statements import check_bundles, read_statements, sha256_by_md5, teacher_files
from flows.auditing.tag_checks import check_tags
from flows.registry import parsed, shown
from flows.remote_objects import StoredBytes, remote_objects
from flows.repository import keys_of, store_of

Begin = Callable[[int, int], Callable[[int, bool], None]]
"""Is told how many objects and bytes will be read, and gives what is called with the size of each that is done."""


@dataclass(frozen=True)
class Verified:
    """How a verification ended.

    Attributes:
        findings: In their order; empty: every byte is as it was written.
        versions: That were looked at, such as ``movielens@v3``.
        objects: How many were to be read.
        bytes: Of these.
        reused: Bytes that an interrupted run had read.
        seconds: How long it took.
        claims: What the objects with findings have to be, for a repair.
    """

    findings: tuple[Finding, ...]
    versions: tuple[str, ...]
    objects: int
    bytes: int
    reused: int
    seconds: float
    claims: Mapping[tuple[str, str], Claim] = field(default_factory=dict, repr=False)

    @property
    def damaged(self) -> list[Finding]:
        """The findings that are more than notes."""
        return damages(self.findings)


def verify(
    root: Path,
    targets: Sequence[str] = (),
    *,
    workers: int | None = None,
    resume: bool = True,
    begin: Begin = lambda objects, size: lambda done, reused: None,
) -> Verified:
    """Verify registered versions of a checkout.

    Args:
        root: The checkout. Outside of a repository the store alone is looked at.
        targets: ``movielens@v3``, or ``movielens`` for all of its versions; none: everything, orphans too.
        workers: Objects read at once; None: as many as there are cores, and two at least.
        resume: Go on from what an interrupted run has found good; else read everything.
        begin: Is told how much there is to read.

    Raises:
        StorageError: The store or DVC's remote cannot be read.
        SettingsError: A target is not registered, or no key is trusted.
    """
    started = time.monotonic()
    workers = workers or max(2, os.cpu_count() or 1)
    with _opened(root, targets) as audit:
        tell_locks(audit)
        statements = read_statements(audit)
        check_bundles(audit, statements)
        expect_outputs(audit, sha256_by_md5(statements.values()))
        expect_releases(audit)
        expect_teachers(audit, teacher_files(statements.values()))
        check_tags(audit)
        check_logs(audit)
        claims = list(audit.ledger)
        listed = [found.size for claim in claims if (found := audit.places.listed(claim))]
        reused = 0
        advance = begin(len(listed), sum(listed))

        def count(size: int, before: bool) -> None:
            nonlocal reused
            reused += size if before else 0
            advance(size, before)

        with Journal(root / JOURNAL, resume=resume) as journal:
            audit.findings += check_all(claims, audit.places, workers=workers, journal=journal, advance=count)
        if audit.whole:
            tell_orphans(audit)
        findings = in_order(without_erased(audit.findings, audit.store, audit.keys))
        broken = {(one.place, one.object) for one in findings}
        return Verified(
            findings=tuple(findings),
            versions=tuple(str(version) for version in audit.chosen),
            objects=len(claims),
            bytes=sum(listed),
            reused=reused,
            seconds=time.monotonic() - started,
            claims={pair: claim for pair in broken if (claim := audit.ledger.get(*pair)) is not None},
        )


@contextmanager
def _opened(root: Path, targets: Sequence[str]) -> Iterator[Audited]:
    store = store_of(root)
    in_store = {one.key: StoredBytes(one.bytes, repr(one.modified)) for one in store.list("")}
    tags = read_tags(root)
    keys = _keys(root, in_store)
    versions = registered_versions(store, keys, tags, in_store, live_attestations(store, in_store, keys))
    locks = LockHistory.read(root)
    has = locks.has_commits([version.commit for version in versions if version.commit])
    for version in versions:
        version.here = has.get(version.commit or "", False)
    chosen = _chosen(versions, targets)
    with ExitStack() as opened:
        remote, in_remote = None, {}
        if any(version.here for version in chosen):
            remote = opened.enter_context(remote_objects(root))
            in_remote = remote.listed()
        places = Places(store, remote, in_store, in_remote)
        yield Audited(root, places, keys, tags, versions, chosen, not targets, locks)


def _keys(root: Path, in_store: Collection[str]) -> Sequence[PublicKey]:
    """Those that are trusted; an empty store needs none."""
    try:
        return trusted_keys(keys_of(root))
    except SettingsError:
        if any(key.startswith(("releases/", "provenance/", "recalls/")) for key in in_store):
            raise
        return ()


def _chosen(versions: Sequence[Version], targets: Sequence[str]) -> list[Version]:
    if not targets:
        return list(versions)
    found: dict[str, Version] = {}
    for target in targets:
        name, number = parsed(target)
        of = [version for version in versions if version.name == name and number in (None, version.number)]
        if not of:
            known = ", ".join(str(version) for version in versions[-5:]) or "none"
            asked = name if number is None else shown(name, number)
            raise SettingsError(f"{asked} is not registered here", f"Registered: {known}.")
        found.update((str(version), version) for version in of)
    return [found[name] for name in sorted(found)]
