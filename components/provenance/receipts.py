"""What was deleted on purpose: a signed log of erasures and of collections, ``receipts/<number>.dsse.json``.

A receipt lists digests and keys of objects and never holds what was in them; a person is named by a keyed hash. What an
erasure names is gone for good and for a reason: whoever verifies must not take it for missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

from components.errors import IntegrityError
from components.provenance.signed_log import LogEntry, SignedLog
from components.provenance.signing import PublicKey, SigningKey
from components.storage.contract import ObjectStore

PREFIX = "receipts"
Kind = Literal["erasure", "collection"]
_TYPE = "application/vnd.recstill.receipt+json"


class Gone(NamedTuple):
    """One object that was deleted.

    Attributes:
        place: ``remote``, ``cache``, ``store``, ``tree`` or ``reader``: DVC's remote, a cache of DVC, the object store,
            files in a work tree, the reader's cache of soft labels.
        name: MD5 of an object of DVC, with ``.dir`` behind for a listing; the key of one of the store; of a file, its
            MD5 or SHA-256.
        digests: Other digests of the same bytes, where they are known.
        what: What it was, in words: a path below ``artifacts/``, a part of soft labels.
    """

    place: str
    name: str
    digests: tuple[str, ...]
    what: str


@dataclass(frozen=True)
class Receipt:
    """One entry.

    Attributes:
        number: From 1.
        kind: ``erasure``: because of a person. ``collection``: nobody needed it.
        subject: Keyed hash of the person; empty for a collection.
        key: Id of the key that the hash was made with.
        data: Digests of the data sets that held the person.
        objects: What was deleted.
        who: Who decided.
        why: Their reason.
        at: When, ISO 8601, UTC, by the clock of the writer.
        digest: SHA-256 of the signed entry.
        signed_by: Id of the signing key.
    """

    number: int
    kind: Kind
    subject: str
    key: str
    data: tuple[str, ...]
    objects: tuple[Gone, ...]
    who: str
    why: str
    at: str
    digest: str = ""
    signed_by: str = ""

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "number": self.number,
            **_body(self),
            "digest": self.digest,
            "signed_by": self.signed_by,
        }


def receipts(store: ObjectStore, keys: Sequence[PublicKey]) -> list[Receipt]:
    """All receipts, oldest first.

    Raises:
        IntegrityError: The log is damaged, or no trusted key has signed an entry.
        StorageError: The store cannot be read.
    """
    return [_receipt(entry) for entry in receipt_log(store).entries(keys)]


def erased(known: Iterable[Receipt]) -> frozenset[str]:
    """Everything that was erased because of a person: MD5s (with ``.dir`` where DVC has it), SHA-256s, and keys.

    Args:
        known: All receipts.
    """
    return frozenset(
        name
        for receipt in known
        if receipt.kind == "erasure"
        for one in receipt.objects
        for name in (one.name, *one.digests)
    )


def write_receipt(
    store: ObjectStore,
    receipt: Receipt,
    keys: Sequence[PublicKey],
    key: SigningKey,
) -> Receipt:
    """Append a receipt, unless the log has that very one already: a call that was interrupted can be made again.

    Args:
        store: Where the log is.
        receipt: Its number, digest and signer are not looked at.
        keys: Whose signatures count.
        key: Signs.

    Raises:
        IntegrityError: The log is damaged.
        LogConflictError: Somebody else has written meanwhile; nothing was changed.
        StorageError: The store cannot be written.
    """
    log = receipt_log(store)
    entries = log.entries(keys)
    body = _body(receipt)
    for entry in entries:
        if dict(entry.body) == body:
            return _receipt(entry)
    return _receipt(log.append(body, expected=len(entries), key=key))


def receipt_log(store: ObjectStore) -> SignedLog:
    """The log."""
    return SignedLog(store, PREFIX, _TYPE)


def merged(objects: Iterable[Gone]) -> tuple[Gone, ...]:
    """Objects in a fixed order, each place and name once, with all digests that any of them tells."""
    found: dict[tuple[str, str], Gone] = {}
    for one in objects:
        there = found.get((one.place, one.name))
        digests = sorted({*one.digests, *(there.digests if there else ())})
        found[one.place, one.name] = Gone(one.place, one.name, tuple(digests), there.what if there else one.what)
    return tuple(found[pair] for pair in sorted(found))


def now() -> str:
    """The time for a receipt."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _body(receipt: Receipt) -> dict[str, Any]:
    return {
        "kind": receipt.kind,
        "subject": receipt.subject,
        "key": receipt.key,
        "data": list(receipt.data),
        "objects": [
            {"place": one.place, "name": one.name, "digests": list(one.digests), "what": one.what}
            for one in receipt.objects
        ],
        "who": receipt.who,
        "why": receipt.why,
        "at": receipt.at,
    }


def _receipt(entry: LogEntry) -> Receipt:
    body: Mapping[str, Any] = entry.body
    try:
        if body["kind"] not in ("erasure", "collection"):
            raise ValueError
        return Receipt(
            number=entry.number,
            kind=body["kind"],
            subject=str(body["subject"]),
            key=str(body["key"]),
            data=tuple(map(str, body["data"])),
            objects=tuple(
                Gone(str(one["place"]), str(one["name"]), tuple(map(str, one["digests"])), str(one["what"]))
                for one in body["objects"]
            ),
            who=str(body["who"]),
            why=str(body["why"]),
            at=str(body["at"]),
            digest=entry.digest,
            signed_by=entry.signed_by,
        )
    except (KeyError, TypeError, ValueError):
        raise IntegrityError(f"entry {entry.number} of {PREFIX} is signed, but is no receipt") from None
