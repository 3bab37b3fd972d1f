"""Which version a run becomes: settled once in the store, so that several machines that finish it make the same one.

``runs/<name>/versions/v<N>.json``
    The number N is that of this run. Whoever writes it first has the number.
``runs/<name>/claims/<key>.json``
    This run is version N, and no other. Whoever writes it first decides for all; a number that another machine had
    taken for the same run stays unused.

Both are written once and never changed. A claim is no version yet: that is there when its attestation is.
"""

from __future__ import annotations

import hashlib
import json

from components.errors import IntegrityError
from components.storage.contract import MissingObjectError, ObjectStore

FORMAT = 1


def claimed_version(store: ObjectStore, name: str, key: str) -> int | None:
    """The version that a run is or becomes; None when none is claimed for it.

    Args:
        store: What all machines share.
        name: Of the model.
        key: Of the run, 64 hexadecimal digits.

    Raises:
        IntegrityError: The claim is damaged.
        StorageError: The store cannot be read.
    """
    where = claim_key(name, key)
    try:
        claim = _read(store, where)
    except MissingObjectError:
        return None
    if claim[0] != key:
        raise _damaged(store, where)
    return claim[1]


def claim_version(store: ObjectStore, name: str, key: str, first_free: int) -> int:
    """The version that a run is or becomes, claimed for it unless one is already.

    Args:
        store: What all machines share.
        name: Of the model.
        key: Of the run, 64 hexadecimal digits.
        first_free: The lowest number that no tag and no release has.

    Raises:
        IntegrityError: A claim is damaged.
        StorageError: The store cannot be read or written.
    """
    number = first_free
    while (version := claimed_version(store, name, key)) is None:
        content = json.dumps({"format": FORMAT, "key": key, "version": number}, sort_keys=True).encode()
        digest = hashlib.sha256(content).hexdigest()
        taken = f"runs/{name}/versions/v{number}.json"
        # One that is there may be this run's own: of a machine that races, or of an attempt that was killed here.
        if store.put_if_absent(taken, content, digest) or _read(store, taken)[0] == key:
            store.put_if_absent(claim_key(name, key), content, digest)
        else:
            number += 1
    return version


def claim_key(name: str, key: str) -> str:
    """Where the claim of a run lies."""
    return f"runs/{name}/claims/{key}.json"


def _read(store: ObjectStore, where: str) -> tuple[str, int]:
    """Key and version of a claim.

    Raises:
        MissingObjectError: There is none.
    """
    content = store.get(where)
    try:
        claim = json.loads(content)
        key, version = claim["key"], claim["version"]
        if claim["format"] != FORMAT or not isinstance(key, str) or type(version) is not int or version < 1:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise _damaged(store, where) from None
    return key, version


def _damaged(store: ObjectStore, where: str) -> IntegrityError:
    return IntegrityError(
        f"{where} in {store.address} is no claim of a version", "Put it back from a copy; nothing was registered."
    )
