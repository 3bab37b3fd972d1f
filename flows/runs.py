"""How each retraining ended, kept in the store: the same data, parameters and code need no second one.

A record is written as ``passed`` when the gate has let a challenger through, before anything of it is registered: it
holds all that a retry needs to end in the same state, whatever day it is by then. As long as it is no more than that a
mark beside it says so, and the next retraining finds it without reading every record.

Records are signed (DSSE): whoever can write to the store, and no more, cannot say that the gate let something through.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from components.errors import IntegrityError
from components.provenance.signing import PublicKey, SigningKey, sign, verified
from components.storage.contract import MissingObjectError, ObjectStore

Status = Literal["passed", "refused", "registered", "superseded"]
FORMAT = 1
_TYPE = "application/vnd.recstill.run+json"
_AGAIN = "Delete it: the run is then made again."
_UNFINISHED = re.compile(r"runs/[A-Za-z0-9_-]+/unfinished/([0-9a-f]{64})")


@dataclass(frozen=True)
class RunRecord:
    """One retraining.

    Attributes:
        name: Of the scenario.
        key: 64 hexadecimal digits: what was asked, see :func:`flows.surveying.run_key`.
        status: ``passed``: let through, not yet registered. ``refused``: production stays as it is. ``registered``.
            ``superseded``: let through, never registered, and judged against what is not the newest any more.
        dataset: Digest of the data set.
        commit: The commit that the run worked from.
        changes: ``key=value`` assignments to its params.yaml.
        champion: Version that was live; None: there was none.
        verdict: Of the gate.
        newest: The newest version when the gate spoke, 0 for none; None: not recorded.
        version: What it was registered as.
        attestation: SHA-256 of the version's attestation.
    """

    name: str
    key: str
    status: Status
    dataset: str
    commit: str
    changes: tuple[str, ...]
    champion: int | None
    verdict: dict[str, Any]
    newest: int | None = None
    version: int | None = None
    attestation: str | None = None

    @property
    def reasons(self) -> list[str]:
        """Why it was refused."""
        return [str(reason) for reason in self.verdict.get("reasons", ())]


def read_run(store: ObjectStore, name: str, key: str, keys: Sequence[PublicKey]) -> RunRecord | None:
    """The record of a run; None when there was none.

    Args:
        store: Where records lie.
        name: Of the scenario.
        key: Of the run.
        keys: Whose signatures count.

    Raises:
        IntegrityError: The record is damaged, or no trusted key has signed it.
        StorageError: The store cannot be read.
    """
    where = _object(name, key)
    try:
        content, _ = verified(store.get(where), _TYPE, keys, f"{where} in {store.address}")
        document = json.loads(content)
        if document.pop("format") != FORMAT or (document["name"], document["key"]) != (name, key):
            raise ValueError
        return RunRecord(**{**document, "changes": tuple(document["changes"])})
    except MissingObjectError:
        return None
    except IntegrityError as error:
        raise IntegrityError(f"the record of a run cannot be used: {error.message}", _AGAIN) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise IntegrityError(f"{where} in {store.address} is no record of a run", _AGAIN) from None


def claim_run(store: ObjectStore, record: RunRecord, keys: Sequence[PublicKey], key: SigningKey) -> RunRecord:
    """Record a run that has no record yet; of several machines that race, all go on with the first one's record.

    Raises:
        IntegrityError: There is one that cannot be used.
        StorageError: The store cannot be written.
    """
    content = _content(record, key)
    where = _object(record.name, record.key)
    _mark(store, record)
    if store.put_if_absent(where, content, hashlib.sha256(content).hexdigest()):
        return record
    return read_run(store, record.name, record.key, keys) or record


def write_run(store: ObjectStore, record: RunRecord, key: SigningKey) -> None:
    """Record a run, over an older record of it."""
    content = _content(record, key)
    _mark(store, record)
    store.put(_object(record.name, record.key), content, hashlib.sha256(content).hexdigest())
    if record.status != "passed":
        store.delete(_mark_of(record.name, record.key))


def unfinished_runs(store: ObjectStore, name: str, keys: Sequence[PublicKey]) -> list[RunRecord]:
    """Runs that the gate has let through and that are no version yet, the oldest first.

    Raises:
        IntegrityError: A record is damaged, or no trusted key has signed it.
        StorageError: The store cannot be read.
    """
    marks = sorted(store.list(f"runs/{name}/unfinished/"), key=lambda one: one.modified)
    found = []
    for mark in marks:
        key = _UNFINISHED.fullmatch(mark.key)
        record = read_run(store, name, key[1], keys) if key else None
        if record is not None and record.status == "passed":
            found.append(record)
        elif record is not None:  # its writer was killed between the two
            store.delete(mark.key)
    return found


def _mark(store: ObjectStore, record: RunRecord) -> None:
    """Before the record: a record that is ``passed`` always has its mark."""
    if record.status == "passed":
        store.put(_mark_of(record.name, record.key), b"", hashlib.sha256(b"").hexdigest())


def _mark_of(name: str, key: str) -> str:
    return f"runs/{name}/unfinished/{key}"


def _object(name: str, key: str) -> str:
    return f"runs/{name}/{key}.json"


def _content(record: RunRecord, key: SigningKey) -> bytes:
    document = {"format": FORMAT, **asdict(record)}
    return sign(json.dumps(document, sort_keys=True, allow_nan=False).encode(), _TYPE, key)
