"""What a signed receipt says was erased because of a person is gone for a reason: no damage, and worth knowing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from components.errors import IntegrityError
from components.provenance.receipts import receipts
from components.provenance.signing import PublicKey
from components.storage.contract import ObjectStore
from flows.auditing.findings import Finding


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
