"""Every claimed object read and hashed, by several threads, each object once, in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from components.errors import IntegrityError
from components.storage.contract import MissingObjectError, ObjectStore
from flows.auditing.claims import Claim
from flows.auditing.findings import Finding
from flows.auditing.journal import Journal
from flows.remote_objects import RemoteObjects, StoredBytes

_WAITING_PER_WORKER = 4


class Places(NamedTuple):
    """Where objects lie, and what is listed there.

    Attributes:
        store: The object store.
        remote: DVC's remote; None when it cannot be used.
        in_store: Sizes and times by key.
        in_remote: Sizes and times by MD5.
    """

    store: ObjectStore
    remote: RemoteObjects | None
    in_store: Mapping[str, StoredBytes]
    in_remote: Mapping[str, StoredBytes]

    def listed(self, claim: Claim) -> StoredBytes | None:
        """How the place lists an object; None when it does not."""
        return (self.in_store if claim.place == "store" else self.in_remote).get(claim.object)

    def asked(self, claim: Claim) -> StoredBytes | None:
        """An object that was not listed, if it is there now."""
        if claim.place == "store":
            size = self.store.size(claim.object)
            return None if size is None else StoredBytes(size, "")
        there = self.remote is not None and self.remote.has(claim.object)
        return StoredBytes(0, "") if there else None

    def where(self, claim: Claim) -> str:
        """The address of its place."""
        if claim.place == "store" or self.remote is None:
            return self.store.address
        return self.remote.address


def check_all(
    claims: Iterable[Claim],
    places: Places,
    *,
    workers: int,
    journal: Journal,
    advance: Callable[[int, bool], None] = lambda size, reused: None,
) -> list[Finding]:
    """Hash every object; memory holds a buffer for each worker.

    Args:
        claims: What has to be there.
        places: Where.
        workers: Objects that are read at once.
        journal: What an interrupted run has found good is not read again.
        advance: Called with the size of each object that is done, and whether an interrupted run had done it.

    Raises:
        StorageError: A place cannot be read.
    """
    findings: list[Finding] = []
    waiting: dict[Future[Finding | None], int] = {}

    def collect(done: Iterable[Future[Finding | None]]) -> None:
        for future in done:
            if (found := future.result()) is not None:
                findings.append(found)
            advance(waiting.pop(future), False)

    pool = ThreadPoolExecutor(workers)
    try:
        for claim, listed in _listed(claims, places, findings):
            entry = (claim.place, claim.object, str(listed.size), listed.stamp, claim.sha256 or claim.md5 or "")
            if journal.has(*entry):
                advance(listed.size, True)
                continue
            waiting[pool.submit(_checked, claim, places, journal, entry)] = listed.size
            if len(waiting) >= workers * _WAITING_PER_WORKER:
                collect(wait(waiting, return_when=FIRST_COMPLETED).done)
        while waiting:
            collect(wait(waiting, return_when=FIRST_COMPLETED).done)
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise
    pool.shutdown()
    return findings


def _listed(claims: Iterable[Claim], places: Places, findings: list[Finding]) -> Iterator[tuple[Claim, StoredBytes]]:
    """Those that are there, big ones first, so that no thread is left alone with one at the end."""
    there = []
    for claim in claims:
        # What was written since the places were listed, by a registration that goes on meanwhile, is not missing.
        listed = places.listed(claim) or places.asked(claim)
        if listed is None:
            findings.append(claim.finding("missing", places.where(claim), "it is not there"))
        else:
            there.append((claim, listed))
    yield from sorted(there, key=lambda pair: -pair[1].size)


def _checked(claim: Claim, places: Places, journal: Journal, entry: tuple[str, ...]) -> Finding | None:
    problem = _of_store(claim, places.store) if claim.place == "store" else _of_remote(claim, places.remote)
    if problem is None:
        journal.add(*entry)
        return None
    kind, text = problem
    return claim.finding("missing" if kind == "missing" else "corrupt", places.where(claim), text)


def _of_store(claim: Claim, store: ObjectStore) -> tuple[str, str] | None:
    try:
        store.check(claim.object, claim.sha256 or "")
    except MissingObjectError:
        return "missing", "it is not there"
    except IntegrityError:
        return "corrupt", f"its SHA-256 is not {claim.sha256}"
    return None


def _of_remote(claim: Claim, remote: RemoteObjects | None) -> tuple[str, str] | None:
    """SHA-256 alone where it is known: it is the faster one, and the one that nobody can forge."""
    if remote is None:
        return None
    try:
        if claim.sha256 and remote.digest(claim.object, "sha256") == claim.sha256:
            return None
        md5 = remote.digest(claim.object, "md5")
    except FileNotFoundError:
        return "missing", "it is not there"
    except PermissionError:
        return "corrupt", "it may not be read"
    problem = ""
    if md5 != claim.md5:
        problem = f"its bytes have the MD5 {md5}, and not the one that names it"
    elif claim.sha256:
        problem = f"its MD5 is right, and its SHA-256 is not {claim.sha256}, which its statement says"
    return ("corrupt", problem) if problem else None
