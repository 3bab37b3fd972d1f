"""What is live: ``prod`` of a name, as a log of switches in the store.

``releases/<name>/prod/<number>.json``, numbered from 1; the greatest number is what is live. A switch is written under
the next number with a conditional put, so that of two that start from the same state exactly one wins: a compare-and-
swap on any store that can put if absent. Nothing is ever changed or taken away: the log tells what was live when. The
order is that of the numbers; the times are what the clocks of the writers said.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from components.errors import IntegrityError, StorageError
from components.serving.releases import Release
from components.storage.contract import MissingObjectError, ObjectStore

Kind = Literal["deploy", "rollback"]
_KEY = re.compile(r"releases/[A-Za-z0-9_-]+/prod/(\d{8})\.json")


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

    def __str__(self) -> str:
        return f"{self.name}@v{self.version}"


class SwitchConflictError(StorageError):
    """Somebody else has switched since the state was read."""


def current(store: ObjectStore, name: str) -> Switch | None:
    """What is live; None when nothing has ever been.

    Raises:
        IntegrityError: The entry is damaged.
        StorageError: The store cannot be read.
    """
    numbers = _numbers(store, name)
    return _read(store, name, numbers[-1]) if numbers else None


def history(store: ObjectStore, name: str) -> list[Switch]:
    """All switches, oldest first.

    Raises:
        IntegrityError: An entry is damaged or missing.
        StorageError: The store cannot be read.
    """
    numbers = _numbers(store, name)
    if numbers != list(range(1, len(numbers) + 1)):
        raise IntegrityError(f"the log of what was live of {name} in {store.address} has a gap")
    return [_read(store, name, number) for number in numbers]


def switch(store: ObjectStore, name: str, release: Release, *, expected: int, kind: Kind, who: str, why: str) -> Switch:
    """Make a release live, if nobody has switched since.

    Args:
        store: Where.
        name: Scenario.
        release: What becomes live; its bytes were verified by the caller.
        expected: Number of the switch that the decision was made on; 0: nothing was live.
        kind: ``deploy`` or ``rollback``.
        who: Who decided.
        why: Their reason.

    Raises:
        SwitchConflictError: Somebody else was faster; nothing is changed.
        StorageError: The store cannot be written.
    """
    before = current(store, name)
    if (before.number if before else 0) != expected:
        raise _conflict(name, before)
    entry = Switch(
        number=expected + 1,
        name=name,
        version=release.version,
        attestation=release.attestation,
        kind=kind,
        previous=before.version if before else None,
        who=who,
        why=why,
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    content = (json.dumps(entry._asdict(), indent=2, sort_keys=True) + "\n").encode()
    if not store.put_if_absent(_key(name, entry.number), content, hashlib.sha256(content).hexdigest()):
        raise _conflict(name, current(store, name))
    return entry


class PointerFollower:
    """Watches what is live, at the cost of one question for a size while nothing changes.

    Args:
        store: Where.
        name: Scenario.
    """

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store, self._name = store, name
        self._latest: Switch | None = None

    def latest(self) -> Switch | None:
        """What is live now; None when nothing has ever been.

        Raises:
            IntegrityError: The entry is damaged.
            StorageError: The store cannot be read.
        """
        if self._latest is None:
            self._latest = current(self._store, self._name)
            return self._latest
        while self._store.size(_key(self._name, self._latest.number + 1)) is not None:
            self._latest = _read(self._store, self._name, self._latest.number + 1)
        return self._latest


def _numbers(store: ObjectStore, name: str) -> list[int]:
    found = (_KEY.fullmatch(entry.key) for entry in store.list(f"releases/{name}/prod/"))
    return sorted(int(match[1]) for match in found if match)


def _key(name: str, number: int) -> str:
    return f"releases/{name}/prod/{number:08d}.json"


def _read(store: ObjectStore, name: str, number: int) -> Switch:
    key = _key(name, number)
    try:
        record: dict[str, Any] = json.loads(store.get(key))
        entry = Switch(**{field: record[field] for field in Switch._fields})
    except MissingObjectError:
        raise
    except (ValueError, KeyError, TypeError):
        raise IntegrityError(f"{key} in {store.address} is damaged: it is no record of a switch") from None
    if (entry.name, entry.number) != (name, number) or not isinstance(entry.version, int):
        raise IntegrityError(f"{key} in {store.address} is the record of another switch")
    return entry


def _conflict(name: str, now: Switch | None) -> SwitchConflictError:
    state = f"{now} is live since {now.at}, by {now.who}" if now else "nothing is live"
    return SwitchConflictError(
        f"{name} was switched by somebody else meanwhile: {state}; nothing was changed by this call",
        "Look at what is live now, and deploy again if it is still wanted.",
    )
