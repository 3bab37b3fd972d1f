"""What a signed receipt says was erased because of a person is gone for a reason: no damage, and worth knowing.

Receipts are believed as far as this checkout remembers their log: one that was cut or replaced says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from components.errors import IntegrityError
from components.provenance.receipts import Receipt, receipt_log, receipts, write_receipt
from components.provenance.signing import PublicKey, SigningKey
from components.storage.contract import ObjectStore
from flows.auditing.findings import Finding
from flows.auditing.witness import check_and_remember
from flows.trust import trusted


def receipts_now(root: Path, store: ObjectStore) -> list[Receipt]:
    """All receipts, oldest first; the log held against what this checkout remembers of it.

    Raises:
        IntegrityError: The log is not whole, or was cut or replaced.
        StorageError: The store cannot be read.
    """
    if problem := check_and_remember(root, store, receipt_log(store)):
        raise IntegrityError(
            f"what was erased cannot be known: {problem}",
            "Put it back from a copy of the store: `recstill verify --repair --from ADDRESS`.",
        )
    return receipts(store, trusted(root))


def keep_receipt(root: Path, store: ObjectStore, receipt: Receipt, key: SigningKey) -> Receipt:
    """Append a receipt, unless the log has that very one already, and remember how far the log goes now.

    Raises:
        IntegrityError: The log is not whole, or was cut or replaced.
        LogConflictError: Somebody else has written meanwhile; nothing was changed.
        StorageError: The store cannot be read or written.
    """
    receipts_now(root, store)
    written = write_receipt(store, receipt, trusted(root), key)
    check_and_remember(root, store, receipt_log(store))
    return written


def without_erased(findings: Iterable[Finding], store: ObjectStore, keys: Sequence[PublicKey]) -> list[Finding]:
    """Findings, those of missing objects that a receipt names turned into notes that say which receipt.

    A receipt log that is not right excuses nothing: it is told by whoever looks at the logs.

    Raises:
        StorageError: The store cannot be read.
    """
    try:
        told = receipts(store, keys)
    except IntegrityError:
        return list(findings)
    numbers = {one.name: receipt.number for receipt in told if receipt.kind == "erasure" for one in receipt.objects}
    return [_excused(one, numbers.get(one.object)) for one in findings]


def _excused(finding: Finding, number: int | None) -> Finding:
    if finding.kind != "missing" or number is None:
        return finding
    problem = f"erased because of a person, as receipt {number} says"
    return replace(finding, severity="note", problem=problem, remedy="")
