"""A release that running services try before it becomes live: on a share of the requests, or in their shadow.

The record is signed, so that nobody but a deployer has a service try anything. It may be taken away unsigned: that ends
a trial, and what is live goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from components.errors import IntegrityError
from components.provenance.signing import sign, verified
from components.storage.contract import MissingObjectError, ObjectStore

if TYPE_CHECKING:
    from components.provenance.signing import PublicKey, SigningKey

Mode = Literal["canary", "shadow"]
_TYPE = "application/vnd.recstill.candidate+json"


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


def propose(store: ObjectStore, candidate: Candidate, key: SigningKey) -> None:
    """Ask all services of a name to try a release; an older request is replaced.

    Args:
        store: Where.
        candidate: What is to be tried.
        key: Signs; services heed it when they trust it.

    Raises:
        StorageError: The store cannot be written.
    """
    content = sign(json.dumps(candidate._asdict(), sort_keys=True).encode(), _TYPE, key)
    store.put(_key(candidate.name), content, hashlib.sha256(content).hexdigest())


def read_candidate(store: ObjectStore, name: str, keys: Sequence[PublicKey]) -> Candidate | None:
    """What is to be tried; None: nothing.

    Raises:
        IntegrityError: The record is damaged, or signed by nobody who is trusted.
        StorageError: The store cannot be read.
    """
    try:
        content = store.get(_key(name))
    except MissingObjectError:
        return None
    what = f"the candidate {_key(name)} in {store.address}"
    payload, _ = verified(content, _TYPE, keys, what)
    try:
        record = json.loads(payload)
        found = Candidate(**{field: record[field] for field in Candidate._fields})
        sane = found.name == name and found.mode in ("canary", "shadow") and 0 < found.share <= 1 and found.version > 0
        sane = sane and float(found.until) > 0
    except (ValueError, KeyError, TypeError):
        sane = False
    if not sane:
        raise IntegrityError(f"{what} is damaged: it is no record of a candidate")
    return found


def withdraw(store: ObjectStore, name: str) -> None:
    """End a trial.

    Raises:
        StorageError: The store cannot be written.
    """
    store.delete(_key(name))


def _key(name: str) -> str:
    return f"releases/{name}/candidate.dsse.json"
