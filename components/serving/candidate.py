"""A release that running services try before it becomes live: on a share of the requests, or in their shadow."""

from __future__ import annotations

import hashlib
import json
from typing import Literal, NamedTuple

from components.errors import IntegrityError
from components.storage.contract import MissingObjectError, ObjectStore

Mode = Literal["canary", "shadow"]


class Candidate(NamedTuple):
    """What services are asked to try.

    Attributes:
        name: Scenario.
        version: Of the release.
        attestation: SHA-256 of its signed attestation.
        mode: ``canary``: it answers a share of the requests. ``shadow``: it answers them as well, for nobody to see.
        share: Of the requests, greater than 0 and at most 1.
        until: When the trial ends by itself, in seconds since 1970.
        number: Unique to this trial.
    """

    name: str
    version: int
    attestation: str
    mode: Mode
    share: float
    until: float
    number: str


def propose(store: ObjectStore, candidate: Candidate) -> None:
    """Ask all services of a name to try a release; an older request is replaced.

    Raises:
        StorageError: The store cannot be written.
    """
    content = (json.dumps(candidate._asdict(), indent=2, sort_keys=True) + "\n").encode()
    store.put(_key(candidate.name), content, hashlib.sha256(content).hexdigest())


def read_candidate(store: ObjectStore, name: str) -> Candidate | None:
    """What is to be tried; None: nothing.

    Raises:
        IntegrityError: The record is damaged.
        StorageError: The store cannot be read.
    """
    try:
        content = store.get(_key(name))
    except MissingObjectError:
        return None
    try:
        record = json.loads(content)
        found = Candidate(**{field: record[field] for field in Candidate._fields})
        sane = found.name == name and found.mode in ("canary", "shadow") and 0 < found.share <= 1 and found.version > 0
        sane = sane and float(found.until) > 0
    except (ValueError, KeyError, TypeError):
        sane = False
    if not sane:
        raise IntegrityError(f"{_key(name)} in {store.address} is damaged: it is no record of a candidate")
    return found


def withdraw(store: ObjectStore, name: str) -> None:
    """End a trial.

    Raises:
        StorageError: The store cannot be written.
    """
    store.delete(_key(name))


def _key(name: str) -> str:
    return f"releases/{name}/candidate.json"
