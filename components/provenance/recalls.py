"""Recalls: a data set, a teacher or a version is bad, says somebody whose key is trusted; all that came of it is too.

They are entries of one signed log, ``recalls/<number>.dsse.json``. A recall names content by digests and never by
names, so that it reaches every release of every scenario that holds one of them in its lineage, also those that are
made later. It is lifted by another entry; nothing is ever taken back silently.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from components.errors import DataError, IntegrityError, RecstillError
from components.provenance.signed_log import LogEntry, SignedLog, newest_of
from components.provenance.signing import PublicKey, SigningKey
from components.storage.contract import ObjectStore

PREFIX = "recalls"
_TYPE = "application/vnd.recstill.recall+json"
_DIGEST = re.compile(r"[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64}")
_FOLDER = ".dir"  # what DVC puts behind the MD5 of a folder's listing


class RecalledError(RecstillError):
    """Something is not done with content that was recalled.

    Args:
        message: What is not done, and why.
        remedy: What to do about it.
        recalls: Those that stand against it.
    """

    def __init__(self, message: str, remedy: str = "", recalls: Sequence[Recall] = ()) -> None:
        super().__init__(message, remedy)
        self.recalls = tuple(recalls)


class Content(Protocol):
    """What a release is made of, as far as recalls ask."""

    @property
    def package(self) -> str:
        """Id of the package."""

    @property
    def attestation(self) -> str:
        """SHA-256 of the signed attestation."""

    @property
    def lineage(self) -> Mapping[str, str]:
        """Digests of the data set, the teacher and all between."""

    @property
    def files(self) -> Mapping[str, str]:
        """SHA-256 by file name."""


@dataclass(frozen=True)
class Recall:
    """One entry of the log.

    Attributes:
        number: Of the entry, from 1.
        digests: What is bad: digests of data sets, teachers, packages, attestations or files, MD5s without ``.dir``.
        kind: What was recalled, for people: ``dataset``, ``teacher``, ``release``, ``file``, ...
        name: As who recalled it has written it: ``movielens@v3``, ``movielens@a1b2c3``, a digest.
        reason: Why.
        who: Who decided.
        at: When, ISO 8601, UTC, by the clock of the writer.
        lifts: Number of the recall that this entry lifts; None: it is a recall itself.
        signed_by: Id of the key.
    """

    number: int
    digests: frozenset[str]
    kind: str
    name: str
    reason: str
    who: str
    at: str
    lifts: int | None
    signed_by: str = ""

    def __str__(self) -> str:
        return f"recall {self.number} of {self.kind} {self.name} by {self.who} at {self.at}: {self.reason}"

    def record(self) -> dict[str, Any]:
        """JSON-able, for documents and for ``/model``."""
        return {
            "number": self.number,
            "kind": self.kind,
            "name": self.name,
            "digests": sorted(self.digests),
            "reason": self.reason,
            "who": self.who,
            "at": self.at,
            "lifts": self.lifts,
            "signed_by": self.signed_by,
        }


class RecallState(NamedTuple):
    """The log as it was read.

    Attributes:
        recalls: Those in force, oldest first.
        number: Of the newest entry; 0: there is none.
        digest: SHA-256 of its envelope.
    """

    recalls: tuple[Recall, ...]
    number: int
    digest: str


def recall_log(store: ObjectStore) -> SignedLog:
    """The log of recalls of a store."""
    return SignedLog(store, PREFIX, _TYPE)


def recall_state(store: ObjectStore, keys: Sequence[PublicKey]) -> RecallState:
    """The recalls in force, and how far the log went: what a decision has seen.

    Raises:
        IntegrityError: The log is not whole.
        StorageError: The store cannot be read.
    """
    entries = recall_log(store).entries(keys)
    return RecallState(tuple(in_force(recall_of(entry) for entry in entries)), *newest_of(entries))


def recalls(store: ObjectStore, keys: Sequence[PublicKey]) -> list[Recall]:
    """The recalls in force, oldest first.

    Raises:
        IntegrityError: The log is not whole.
        StorageError: The store cannot be read.
    """
    return list(recall_state(store, keys).recalls)


def every_recall(store: ObjectStore, keys: Sequence[PublicKey]) -> list[Recall]:
    """All entries, oldest first: those that were lifted and the lifts too.

    Raises:
        IntegrityError: The log is not whole.
        StorageError: The store cannot be read.
    """
    return [recall_of(entry) for entry in recall_log(store).entries(keys)]


def in_force(entries: Iterable[Recall]) -> list[Recall]:
    """Those recalls that no later entry lifts."""
    known = list(entries)
    lifted = {one.lifts: one.number for one in known if one.lifts is not None}
    return [one for one in known if one.lifts is None and lifted.get(one.number, 0) < one.number]


def content_ids(content: Content) -> frozenset[str]:
    """Everything that a recall may name of a release."""
    ids = (content.package, content.attestation, *content.lineage.values(), *content.files.values())
    return frozenset(plain_digest(one) for one in ids)


def recalled_by(content: Content, recalls: Iterable[Recall], also: Iterable[str] = ()) -> list[Recall]:
    """The recalls that a release inherits: those that name its package, its attestation, or anything it came from.

    Args:
        content: A release.
        recalls: Those in force.
        also: More ids of what it came from, such as those of its signed statements.
    """
    return recalls_of(content_ids(content) | {plain_digest(one) for one in also}, recalls)


def recalls_of(ids: Iterable[str], recalls: Iterable[Recall]) -> list[Recall]:
    """The recalls that name one of some content ids."""
    wanted = frozenset(ids)
    return [one for one in recalls if one.digests & wanted]


def refuse_recalled(what: str, found: Sequence[Recall]) -> None:
    """Refuse what has inherited a recall.

    Args:
        what: For the message: ``movielens@v3``.
        found: The recalls that it has inherited.

    Raises:
        RecalledError: There is one.
    """
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise RecalledError(
            f"{what} is recalled: {found[0]}{more}",
            f"If that was wrong: `recstill recall {found[0].number} --lift --reason TEXT`.",
            found,
        )


def put_recall(
    store: ObjectStore,
    *,
    digests: Iterable[str],
    kind: str,
    name: str,
    reason: str,
    who: str,
    expected: int,
    key: SigningKey,
    lifts: int | None = None,
) -> Recall:
    """Write a recall, or what lifts one.

    Args:
        store: Where.
        digests: What is bad; of a lift, what is good again.
        kind: What it is, in a word.
        name: As the user has named it.
        reason: Why; it is shown wherever the recall stops something.
        who: Who decides.
        expected: Number of the newest entry of the log that the decision was made on; 0: it is empty.
        key: Signs.
        lifts: The recall that is lifted.

    Raises:
        DataError: There is no digest, or one is none; there is no reason.
        LogConflictError: Somebody else was faster; nothing was changed.
        StorageError: The store cannot be written.
    """
    plain = sorted({plain_digest(one) for one in digests})
    if not plain or not all(_DIGEST.fullmatch(one) for one in plain):
        bad = next((one for one in plain if not _DIGEST.fullmatch(one)), "nothing")
        raise DataError(f"a recall names content by digests, and {bad!r} is none", "Give an MD5 or SHA-256.")
    if not reason.strip():
        raise DataError("a recall needs a reason", "It is shown wherever the recall stops something: --reason TEXT")
    body = {
        "digests": plain,
        "kind": kind,
        "name": name,
        "reason": reason.strip(),
        "who": who,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "lifts": lifts,
    }
    return recall_of(recall_log(store).append(body, expected=expected, key=key))


def recall_of(entry: LogEntry) -> Recall:
    """What an entry of the log says.

    Raises:
        IntegrityError: It is signed, and no recall: nothing can be known of what is recalled then.
    """
    body = entry.body
    try:
        found = Recall(
            number=entry.number,
            digests=frozenset(str(one) for one in body["digests"]),
            kind=str(body["kind"]),
            name=str(body["name"]),
            reason=str(body["reason"]),
            who=str(body["who"]),
            at=str(body["at"]),
            lifts=None if body["lifts"] is None else int(body["lifts"]),
            signed_by=entry.signed_by,
        )
    except (KeyError, TypeError, ValueError):
        raise IntegrityError(
            f"entry {entry.number} of {PREFIX} is signed, but not of the form that this version reads",
            "Use the version of Recstill that wrote it, or a newer one.",
        ) from None
    return found


def plain_digest(text: str) -> str:
    """A digest as recalls compare it: small letters, without ``sha256:`` before and without ``.dir`` behind."""
    return text.strip().lower().removeprefix("sha256:").removeprefix("md5:").removesuffix(_FOLDER)
