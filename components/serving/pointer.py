"""What is live: ``prod`` of a name, as a signed log of switches in the store.

``releases/<name>/prod/<number>.dsse.json``, numbered from 1; the greatest number is what is live. A switch is signed by
whoever makes it, names the one before it by its digest, and is written under the next number with a conditional put, so
that of two that start from the same state exactly one wins. Nothing is ever changed or taken away: the log tells what
was live when. The order is that of the numbers; the times are what the clocks of the writers said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from components.errors import IntegrityError, StorageError
from components.provenance.signed_log import LogConflictError, LogEntry, SignedLog
from components.serving.releases import Release, attestation_key
from components.storage.contract import ObjectStore

if TYPE_CHECKING:
    from components.provenance.signing import PublicKey, SigningKey

Kind = Literal["deploy", "rollback"]
_TYPE = "application/vnd.recstill.switch+json"


class Switch(NamedTuple):
    """One entry of the log.

    Attributes:
        number: From 1, without a gap.
        name: Scenario.
        version: What became live.
        attestation: SHA-256 of that version's signed attestation.
        kind: ``deploy`` or ``rollback``.
        previous: The version that was live before; None: none was.
        who: Who decided.
        why: Their reason.
        at: When, ISO 8601, UTC, by the clock of the writer.
        recalls: Number of the newest entry of the log of recalls that the decision has seen; 0: there was none.
        recalls_digest: SHA-256 of that entry's envelope.
        digest: SHA-256 of this entry's own envelope.
        signed_by: Id of the key.
    """

    number: int
    name: str
    version: int
    attestation: str
    kind: Kind
    previous: int | None
    who: str
    why: str
    at: str
    recalls: int = 0
    recalls_digest: str = ""
    digest: str = ""
    signed_by: str = ""

    def __str__(self) -> str:
        return f"{self.name}@v{self.version}"


_WRITTEN = tuple(field for field in Switch._fields if field not in ("number", "digest", "signed_by"))


class SwitchConflictError(StorageError):
    """Somebody else has switched since the state was read."""


def switch_log(store: ObjectStore, name: str) -> SignedLog:
    """The log of switches of a name.

    Raises:
        DataError: It cannot be a name.
    """
    attestation_key(name, 1)
    return SignedLog(store, f"releases/{name}/prod", _TYPE)


def current(store: ObjectStore, name: str, keys: Sequence[PublicKey]) -> Switch | None:
    """What is live; None when nothing has ever been.

    Args:
        store: Where.
        name: Scenario.
        keys: Whose signatures count.

    Raises:
        IntegrityError: The log has a gap, or its end is damaged or signed by nobody who is trusted.
        StorageError: The store cannot be read.
    """
    head = switch_log(store, name).head(keys)
    return _switch(name, head) if head is not None else None


def history(store: ObjectStore, name: str, keys: Sequence[PublicKey]) -> list[Switch]:
    """All switches, oldest first.

    Raises:
        IntegrityError: An entry is damaged, missing, out of its place, or signed by nobody who is trusted.
        StorageError: The store cannot be read.
    """
    return [_switch(name, entry) for entry in switch_log(store, name).entries(keys)]


def switch(
    store: ObjectStore,
    name: str,
    release: Release,
    *,
    expected: int,
    kind: Kind,
    who: str,
    why: str,
    key: SigningKey,
    keys: Sequence[PublicKey],
    recalls: tuple[int, str] = (0, ""),
) -> Switch:
    """Make a release live, if nobody has switched since.

    Args:
        store: Where.
        name: Scenario.
        release: What becomes live; its bytes were verified by the caller.
        expected: Number of the switch that the decision was made on; 0: nothing was live.
        kind: ``deploy`` or ``rollback``.
        who: Who decided.
        why: Their reason.
        key: Signs.
        keys: Whose signatures count.
        recalls: Number and digest of the newest entry of the log of recalls that the decision has seen.

    Raises:
        SwitchConflictError: Somebody else was faster; nothing is changed.
        IntegrityError: The log is not right, so that nothing may be built on it.
        StorageError: The store cannot be written.
    """
    before = current(store, name, keys)
    if (before.number if before else 0) != expected:
        raise _conflict(name, before)
    body = {
        "name": name,
        "version": release.version,
        "attestation": release.attestation,
        "kind": kind,
        "previous": before.version if before else None,
        "who": who,
        "why": why,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "recalls": recalls[0],
        "recalls_digest": recalls[1],
    }
    try:
        return _switch(name, switch_log(store, name).append(body, expected=expected, key=key))
    except LogConflictError:
        raise _conflict(name, current(store, name, keys)) from None


class PointerFollower:
    """Watches what is live, at the cost of one question for a size while nothing changes.

    What it has seen it does not forget: a log that was cut, or has another past all at once, moves it nowhere.

    Args:
        store: Where.
        name: Scenario.
        keys: The keys that are trusted now; asked for whenever something is read.
    """

    def __init__(self, store: ObjectStore, name: str, keys: Callable[[], Sequence[PublicKey]]) -> None:
        self._log, self._name, self._keys = switch_log(store, name), name, keys
        self._head: LogEntry | None = None

    def latest(self) -> Switch | None:
        """What is live now; None when nothing has ever been.

        Raises:
            IntegrityError: A new entry is damaged, signed by nobody who is trusted, or does not follow.
            StorageError: The store cannot be read.
        """
        if self._head is None:
            self._head = self._log.head(self._keys())
        elif newer := self._log.newer(self._head, self._keys()):
            self._head = newer[-1]
        return _switch(self._name, self._head) if self._head is not None else None


def _switch(name: str, entry: LogEntry) -> Switch:
    try:
        found = Switch(
            number=entry.number,
            **{field: entry.body[field] for field in _WRITTEN},
            digest=entry.digest,
            signed_by=entry.signed_by,
        )
    except KeyError:
        raise IntegrityError(
            f"switch {entry.number} of {name} is signed, but not of the form that this version reads"
        ) from None
    if found.name != name or not isinstance(found.version, int) or not isinstance(found.recalls, int):
        raise IntegrityError(f"switch {entry.number} of {name} is signed, but is no switch of it")
    return found


def _conflict(name: str, now: Switch | None) -> SwitchConflictError:
    state = f"{now} is live since {now.at}, by {now.who}" if now else "nothing is live"
    return SwitchConflictError(
        f"{name} was switched by somebody else meanwhile: {state}; nothing was changed by this call",
        "Look at what is live now, and deploy again if it is still wanted.",
    )
