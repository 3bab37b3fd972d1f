"""Every byte of every registered version, read and hashed, wherever it lies; and every record against the others.

``dvc.lock`` of the commit that a version is of says which bytes DVC's remote must have. The signed attestation says
which files the store must have, the manifest of soft labels which parts. Tags, logs and attestations name each other.
An object that many versions share is read once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.provenance.stage_statement import StageStatement
from flows.auditing.agreeing import check_agreement
from flows.auditing.audited import Audited
from flows.auditing.copies import Copies, opened
from flows.auditing.erased_objects import without_erased
from flows.auditing.findings import Finding, damages, in_order
from flows.auditing.hashing import check_all
from flows.auditing.journal import JOURNAL, Journal
from flows.auditing.logs import check_logs
from flows.auditing.opening import opened_audit
from flows.auditing.orphans import tell_orphans
from flows.auditing.outputs import expect_outputs, tell_locks
from flows.auditing.packages import expect_releases, expect_teachers
from flows.auditing.repairing import Repair, repair
from flows.auditing.statements import check_bundles, read_statements, sha256_by_md5, teacher_files
from flows.auditing.tag_checks import check_tags

Begin = Callable[[int, int], Callable[[int, bool], None]]
"""Is told how many objects and bytes will be read, and gives what is called with the size of each that is done."""


def nobody(objects: int, size: int) -> Callable[[int, bool], None]:
    """Nobody watches."""
    return lambda done, reused: None


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
    """

    findings: tuple[Finding, ...]
    versions: tuple[str, ...]
    objects: int
    bytes: int
    reused: int
    seconds: float

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
    begin: Begin = nobody,
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
        SettingsError: A target is not registered, or a key cannot be read.
    """
    with opened_audit(root, targets) as audit:
        return examine(audit, workers, resume, begin)[0]


def verify_and_repair(
    root: Path,
    targets: Sequence[str] = (),
    *,
    addresses: Sequence[str] = (),
    folders: Sequence[Path] = (),
    workers: int | None = None,
    begin: Begin = nobody,
    say: Callable[[Repair], None] = lambda _: None,
) -> tuple[Verified, list[Repair]]:
    """Verify, put back what there is a sound copy of, and verify again; until nothing more can be put back.

    A folder whose listing is put back may want files that nobody knew of before: hence more than once.

    Args:
        root: The checkout.
        targets: As for :func:`verify`.
        addresses: Other stores in which to look, beside DVC's cache and the work trees.
        folders: More folders of this machine in which files of outputs may lie.
        workers: Objects read at once.
        begin: Is told how much there is to read, each time.
        say: Is told each repair as it is made.

    Returns:
        How the last verification ended, and everything that was tried.

    Raises:
        StorageError: A place cannot be read or written, or an address is none.
        SettingsError: A target is not registered, or a key cannot be read.
    """
    for address in addresses:  # now, and not when everything has been read
        opened(address)
    repairs: list[Repair] = []
    tried: set[tuple[str, str]] = set()
    while True:
        with opened_audit(root, targets) as audit:
            found, statements = examine(audit, workers, False, begin)
            left = [one for one in found.damaged if (one.place, one.object) not in tried]
            if not left:
                return found, repairs
            copies = Copies(audit, addresses, sha256_by_md5(statements.values()), folders)
            repairs += repair(audit, left, copies, statements.values(), say)
            tried |= {(one.place, one.object) for one in left}


def examine(
    audit: Audited, workers: int | None = None, resume: bool = True, begin: Begin = nobody
) -> tuple[Verified, dict[str, StageStatement]]:
    """Look at everything of an audit that is open.

    Args:
        audit: It; its ledger and findings are filled.
        workers: Objects read at once.
        resume: Go on from what an interrupted run has found good.
        begin: Is told how much there is to read.

    Returns:
        How it ended, and the signed statements that are right, by entry.

    Raises:
        StorageError: The store or DVC's remote cannot be read.
    """
    started = time.monotonic()
    workers = workers or max(2, os.cpu_count() or 1)
    tell_locks(audit)
    statements = read_statements(audit)
    check_bundles(audit, statements)
    check_agreement(audit, statements)
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

    with Journal(audit.root / JOURNAL, resume=resume) as journal:
        audit.findings += check_all(claims, audit.places, workers=workers, journal=journal, advance=count)
    if audit.whole:
        tell_orphans(audit)
    verified = Verified(
        findings=tuple(in_order(without_erased(audit.findings, audit.store, audit.keys))),
        versions=tuple(str(version) for version in audit.chosen),
        objects=len(claims),
        bytes=sum(listed),
        reused=reused,
        seconds=time.monotonic() - started,
    )
    return verified, statements
