"""Logs that only grow, in a store: every entry is signed, and names the one before it by its digest.

``<prefix>/<number>.dsse.json``, numbered from 1 in eight digits. An entry is a DSSE envelope around ``{"log": prefix,
"number": n, "before": SHA-256 of the envelope before, ...}``. It is put under the next number only if there is none, so
that of two writers that start from the same state exactly one wins: a compare-and-swap on any store that can put if
absent. Nobody without a trusted key can add, change, reorder or swap entries, or move them to another log.

What a log alone cannot tell is that its newest entries were taken away: somebody has to remember how far it went.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from components.errors import IntegrityError, RecstillError, StorageError
from components.provenance.signing import PublicKey, SigningKey, sign, verified
from components.storage.contract import MissingObjectError, ObjectStore

_OWN = ("log", "number", "before")
_RESTORE = "Put the log back from a copy of the store: `recstill verify --repair --from ADDRESS`."


@dataclass(frozen=True)
class LogEntry:
    """One entry of a log.

    Attributes:
        number: From 1, without a gap.
        body: What was written.
        digest: SHA-256 of the envelope, 64 hexadecimal digits: what the next entry names.
        signed_by: Id of the key.
    """

    number: int
    body: Mapping[str, Any]
    digest: str
    signed_by: str


class LogProblem(NamedTuple):
    """An entry that is not right.

    Attributes:
        key: Of the object in the store.
        number: Of the entry.
        problem: What is wrong, in a sentence that names the entry.
    """

    key: str
    number: int
    problem: str


class LogConflictError(StorageError):
    """Somebody else has written the next entry since the state was read; nothing was changed."""


class SignedLog:
    """A log.

    Args:
        store: Where it is.
        prefix: Below which its entries lie, such as ``releases/movielens/prod``.
        payload_type: Of its envelopes; entries of another kind of log are refused by it.

    Attributes:
        store: Where it is.
        prefix: Below which its entries lie.
    """

    def __init__(self, store: ObjectStore, prefix: str, payload_type: str) -> None:
        self.store, self.prefix, self._type = store, prefix.strip("/"), payload_type
        self._pattern = re.compile(re.escape(self.prefix) + r"/(\d{8})\.dsse\.json")

    def __str__(self) -> str:
        return f"{self.prefix} in {self.store.address}"

    def key(self, number: int) -> str:
        """Where an entry lies in the store."""
        return f"{self.prefix}/{number:08d}.dsse.json"

    def numbers(self) -> list[int]:
        """The numbers that there are, ascending, from one listing; nothing is read.

        Raises:
            StorageError: The store cannot be read.
        """
        found = (self._pattern.fullmatch(entry.key) for entry in self.store.list(f"{self.prefix}/"))
        return sorted(int(match[1]) for match in found if match)

    def newest(self) -> int:
        """Number of the newest entry, from one listing; 0: the log is empty.

        Raises:
            IntegrityError: The log has a gap.
            StorageError: The store cannot be read.
        """
        numbers = self.numbers()
        if gap := _gap(numbers):
            raise self._missing(gap)
        return len(numbers)

    def head(self, keys: Sequence[PublicKey]) -> LogEntry | None:
        """The newest entry, and that it follows the one before it; None when the log is empty.

        Args:
            keys: Whose signatures count.

        Raises:
            IntegrityError: The log has a gap, or one of these two entries is not right.
            StorageError: The store cannot be read.
        """
        newest = self.newest()
        if not newest:
            return None
        before = self.read(newest - 1, keys) if newest > 1 else None
        return self.read(newest, keys, after=before)

    def entries(self, keys: Sequence[PublicKey]) -> list[LogEntry]:
        """All entries, oldest first.

        Raises:
            IntegrityError: There is a gap, or an entry is not right: the first one is named.
            StorageError: The store cannot be read.
        """
        entries, problems = self.examined(keys)
        if problems:
            raise IntegrityError(problems[0].problem, _RESTORE)
        return entries

    def examined(self, keys: Sequence[PublicKey]) -> tuple[list[LogEntry], list[LogProblem]]:
        """All entries that are right by themselves, oldest first, and everything that is wrong with the log.

        Raises:
            StorageError: The store cannot be read.
        """
        entries: list[LogEntry] = []
        problems: list[LogProblem] = []
        numbers = set(self.numbers())
        before: LogEntry | None = None
        for number in range(1, max(numbers, default=0) + 1):
            entry = None
            try:
                if number not in numbers:
                    raise self._missing(number)
                entry, follows = self._read(number, keys)
                entries.append(entry)
                # After one that is not right nothing can be said of the order; that one has told so itself.
                self._require_order(entry, follows, before)
            except MissingObjectError:
                problems.append(LogProblem(self.key(number), number, self._missing(number).message))
            except IntegrityError as error:
                problems.append(LogProblem(self.key(number), number, error.message))
            before = entry
        return entries, problems

    def read(self, number: int, keys: Sequence[PublicKey], *, after: LogEntry | None = None) -> LogEntry:
        """One entry, its signature checked; that it follows another one too, where ``after`` or number 1 says which.

        Raises:
            IntegrityError: It is damaged, of another log or place, signed by nobody who is trusted, or does not follow.
            MissingObjectError: There is none of that number.
            StorageError: The store cannot be read.
        """
        entry, follows = self._read(number, keys)
        self._require_order(entry, follows, after)
        return entry

    def newer(self, than: LogEntry, keys: Sequence[PublicKey]) -> list[LogEntry]:
        """What was written since, each following the one before it; costs one question for a size when nothing was.

        Raises:
            IntegrityError: A newer entry is not right.
            StorageError: The store cannot be read.
        """
        found = [than]
        while self.store.size(self.key(found[-1].number + 1)) is not None:
            found.append(self.read(found[-1].number + 1, keys, after=found[-1]))
        return found[1:]

    def append(self, body: Mapping[str, Any], *, expected: int, key: SigningKey) -> LogEntry:
        """Write the next entry, if nobody else has since.

        Args:
            body: JSON-able; what the entry says.
            expected: Number of the newest entry, which the caller has read and checked; 0: the log is empty.
            key: Signs. The same body in the same place, signed with the same key, gives the same bytes.

        Raises:
            LogConflictError: There is another newest entry; nothing was changed.
            StorageError: The store cannot be written.
        """
        if taken := set(_OWN) & body.keys():
            raise ValueError(f"a log entry sets {', '.join(sorted(taken))} itself")
        before = ""
        if expected:
            try:
                before = hashlib.sha256(self.store.get(self.key(expected))).hexdigest()
            except MissingObjectError:
                raise self._conflict(expected) from None
        number = expected + 1
        payload = {"log": self.prefix, "number": number, "before": before, **body}
        envelope = sign(json.dumps(payload, sort_keys=True, allow_nan=False).encode(), self._type, key)
        digest = hashlib.sha256(envelope).hexdigest()
        if not self.store.put_if_absent(self.key(number), envelope, digest):
            raise self._conflict(expected)
        return LogEntry(number, dict(body), digest, key.public.id)

    def _read(self, number: int, keys: Sequence[PublicKey]) -> tuple[LogEntry, str]:
        """An entry by itself, and the digest of the one that it follows."""
        what = f"entry {number} of {self}"
        envelope = self.store.get(self.key(number))
        payload, signer = verified(envelope, self._type, keys, what)
        try:
            record = json.loads(payload)
            log, told, before = (record.pop(name) for name in _OWN)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise IntegrityError(f"{what} is signed, but not of the form that this version reads") from None
        if (log, told) != (self.prefix, number) or not isinstance(before, str):
            raise IntegrityError(f"{what} is entry {told!r} of {log!r}: somebody has put it in its place", _RESTORE)
        return LogEntry(number, record, hashlib.sha256(envelope).hexdigest(), signer), before

    def _require_order(self, entry: LogEntry, follows: str, before: LogEntry | None) -> None:
        if entry.number == 1 and follows != "":
            raise IntegrityError(f"entry 1 of {self} names one before it, and there is none", _RESTORE)
        if before is not None and (before.number + 1 != entry.number or follows != before.digest):
            raise IntegrityError(
                f"entry {entry.number} of {self} was not written after the entry {before.number} that is there: one of "
                f"{self.key(before.number)} and {self.key(entry.number)} was replaced",
                _RESTORE,
            )

    def _missing(self, number: int) -> IntegrityError:
        return IntegrityError(f"entry {number} of {self} is missing, and later ones are there", _RESTORE)

    def _conflict(self, expected: int) -> LogConflictError:
        return LogConflictError(
            f"{self} has not entry {expected} as its newest one any more; nothing was changed by this call",
            "Look at what it says now, and decide again.",
        )


def newest_of(entries: Iterable[LogEntry]) -> tuple[int, str]:
    """Number and digest of the newest entry, to be remembered; ``(0, "")`` of an empty log."""
    last = max(entries, key=lambda entry: entry.number, default=None)
    return (last.number, last.digest) if last is not None else (0, "")


def anchor_problem(log: SignedLog, number: int, digest: str) -> str:
    """Whether a log still has an entry that somebody remembers; a sentence when it has not, else empty.

    Args:
        log: Which.
        number: Of the remembered entry; 0: nothing is remembered.
        digest: SHA-256 of its envelope.

    Raises:
        StorageError: The store cannot be read.
    """
    if not number:
        return ""
    try:
        found = hashlib.sha256(log.store.get(log.key(number))).hexdigest()
    except MissingObjectError:
        return f"entry {number} of {log} was there once, and is gone: the log was cut"
    except RecstillError as error:
        if isinstance(error, StorageError):
            raise
        return f"entry {number} of {log} cannot be read: {error.message}"
    return "" if found == digest else f"entry {number} of {log} is another one than it was once: it was replaced"


def _gap(numbers: Sequence[int]) -> int:
    """The first number that is missing; 0: none."""
    return next((number for number, there in enumerate(numbers, start=1) if number != there), 0)
