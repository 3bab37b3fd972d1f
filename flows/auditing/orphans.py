"""What lies in DVC's remote and in the store, and nobody refers to: notes, since nobody is worse for it."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict

from components.errors import IntegrityError
from components.soft_labels.manifest import MANIFEST_NAME
from components.storage.contract import MissingObjectError
from flows.auditing.audited import Audited
from flows.auditing.findings import Finding
from flows.auditing.outputs import members
from flows.locked_outputs import FOLDER
from flows.repository import without_credentials

_LABELS = re.compile(r"soft-labels/([0-9a-f]{64})/(.+)")
_GC = "`recstill gc` names and removes what nobody needs."
_SINGLY = 20


def tell_orphans(audit: Audited) -> None:
    """Note objects that no lock of any branch, tag or work tree names, in the remote; and caches in the store.

    A repository that knows only part of its history, or whose remote others share, cannot say: it says nothing.
    """
    if audit.places.remote is None or audit.locks.notes:
        return
    named: set[str] = set()
    unknown = False
    listings: dict[str, dict[str, str] | None] = {}
    for lock in audit.locks.locks:
        unknown = unknown or (not lock.stages and lock.damaged)
        for run in lock.stages:
            for md5 in run.outputs.values():
                named.add(md5)
                if md5.endswith(FOLDER) and md5 in audit.places.in_remote:
                    found = members(audit, listings, md5)
                    unknown = unknown or found is None
                    named.update((found or {}).values())
    if unknown:  # a listing that cannot be read may name any of them
        return
    remote = audit.places.remote
    strangers = [md5 for md5 in audit.places.in_remote if md5 not in named]
    size = sum(audit.places.in_remote[md5].size for md5 in strangers)
    for md5 in strangers[:_SINGLY]:
        audit.findings.append(_orphan(md5, remote.address, "an object", "no dvc.lock of this repository names it"))
    if more := len(strangers) - _SINGLY if len(strangers) > _SINGLY else 0:
        text = f"and {more} more that no dvc.lock of this repository names; {size:,} bytes in all"
        audit.findings.append(_orphan("*", remote.address, "objects", text))
    _tell_labels(audit, named)


def _orphan(name: str, where: str, what: str, text: str) -> Finding:
    return Finding("orphan", "remote", name, where, what, text, _GC, severity="note")


def _tell_labels(audit: Audited, named: set[str]) -> None:
    caches: dict[str, list[str]] = defaultdict(list)
    for key in audit.places.in_store:
        if found := _LABELS.fullmatch(key):
            caches[found[1]].append(key)
    for cache, keys in caches.items():
        needed = {key for key in keys if ("store", key) in audit.ledger}
        if needed:
            for key in sorted(set(keys) - needed):
                audit.in_store("orphan", key, "beside the soft labels", "no manifest that is registered names it", _GC,
                               severity="note")  # fmt: skip
            continue
        manifest = f"soft-labels/{cache}/{MANIFEST_NAME}"
        try:
            content = audit.store.get(manifest)
        except MissingObjectError:
            continue  # a writer may be at work
        except IntegrityError:
            content = b""
        if hashlib.md5(content, usedforsecurity=False).hexdigest() not in named:
            text = f"soft labels ({len(keys)} objects) that no dvc.lock of this repository names"
            where = without_credentials(audit.store.address)
            name = f"soft-labels/{cache}"
            audit.findings.append(Finding("orphan", "store", name, where, "a cache", text, _GC, severity="note"))
