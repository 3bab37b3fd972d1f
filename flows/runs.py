"""How each retraining ended, kept in the store: the same data, parameters and code need no second one.

A record is written as ``passed`` when the gate has let a challenger through, before anything of it is registered: it
holds all that a retry needs to end in the same state, whatever day it is by then.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from components.errors import IntegrityError
from components.storage.contract import MissingObjectError, ObjectStore

Status = Literal["passed", "refused", "registered"]
FORMAT = 1


@dataclass(frozen=True)
class RunRecord:
    """One retraining.

    Attributes:
        name: Of the scenario.
        key: 64 hexadecimal digits: what was asked, see :func:`flows.surveying.run_key`.
        status: ``passed``: let through, not yet registered. ``refused``: production stays as it is. ``registered``.
        dataset: Digest of the data set.
        commit: The commit that the run worked from.
        changes: ``key=value`` assignments to its params.yaml.
        champion: Version that was live; None: there was none.
        verdict: Of the gate.
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
    version: int | None = None
    attestation: str | None = None

    @property
    def reasons(self) -> list[str]:
        """Why it was refused."""
        return [str(reason) for reason in self.verdict.get("reasons", ())]


def read_run(store: ObjectStore, name: str, key: str) -> RunRecord | None:
    """The record of a run; None when there was none.

    Raises:
        IntegrityError: The record is damaged.
        StorageError: The store cannot be read.
    """
    where = _object(name, key)
    try:
        document = json.loads(store.get(where))
        if document.pop("format") != FORMAT or (document["name"], document["key"]) != (name, key):
            raise ValueError
        return RunRecord(**{**document, "changes": tuple(document["changes"])})
    except MissingObjectError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise IntegrityError(
            f"{where} in {store.address} is no record of a run", "Delete it: the run is then made again."
        ) from None


def claim_run(store: ObjectStore, record: RunRecord) -> RunRecord:
    """Record a run that has no record yet; of several machines that race, all go on with the first one's record."""
    content = _content(record)
    where = _object(record.name, record.key)
    if store.put_if_absent(where, content, hashlib.sha256(content).hexdigest()):
        return record
    return read_run(store, record.name, record.key) or record


def write_run(store: ObjectStore, record: RunRecord) -> None:
    """Record a run, over an older record of it."""
    content = _content(record)
    store.put(_object(record.name, record.key), content, hashlib.sha256(content).hexdigest())


def _object(name: str, key: str) -> str:
    return f"runs/{name}/{key}.json"


def _content(record: RunRecord) -> bytes:
    document = {"format": FORMAT, **asdict(record)}
    return (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
