"""The signed logs of the store: whole, in order, and as long as they were once."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from components.errors import IntegrityError
from components.provenance.recalls import recall_log
from components.provenance.receipts import receipt_log
from components.provenance.signed_log import SignedLog, anchor_problem
from components.provenance.signing import PublicKey
from components.serving.candidate import read_candidate
from components.serving.pointer import switch_log
from components.storage.contract import ObjectStore
from flows.auditing.audited import Audited
from flows.auditing.findings import Kind
from flows.auditing.witness import anchors, check_and_remember

_SWITCH = re.compile(r"releases/([A-Za-z0-9_-]+)/prod/\d{8}\.dsse\.json")
_CANDIDATE = re.compile(r"releases/([A-Za-z0-9_-]+)/candidate\.dsse\.json")
_ENTRY = re.compile(r"entry (\d+) of ")
_RESTORE = "Put the log back from a copy of the store: `recstill verify --repair --from ADDRESS`."
_WITHDRAW = "It is no part of a version; deploying anew replaces it."


def live_attestations(
    store: ObjectStore, in_store: Collection[str], keys: Sequence[PublicKey]
) -> dict[str, dict[int, set[str]]]:
    """What the logs of switches say: attestations by version by name. Entries that are not right say nothing."""
    found: dict[str, dict[int, set[str]]] = {}
    for name in sorted({match[1] for key in in_store if (match := _SWITCH.fullmatch(key))}):
        entries, _ = switch_log(store, name).examined(keys)
        for entry in entries:
            version, attestation = entry.body.get("version"), entry.body.get("attestation")
            if isinstance(version, int) and isinstance(attestation, str):
                found.setdefault(name, {}).setdefault(version, set()).add(attestation)
    return found


def check_logs(audit: Audited) -> None:
    """Tell entries of logs that are damaged, missing or replaced, and logs that were cut."""
    for name in audit.names:
        log = switch_log(audit.store, name)
        _check(audit, log, f"the log of what was live of {name}")
        for anchor in anchors(audit.root, name):
            _held_against(audit, log, [(anchor.number, anchor.digest)], f"the tag {anchor.tag} names it")
        entries, _ = log.examined(audit.keys)
        seen = ((int(one.body.get("recalls") or 0), str(one.body.get("recalls_digest") or "")) for one in entries)
        _held_against(audit, recall_log(audit.store), seen, f"the log of what was live of {name} names it")
    if audit.whole:
        _check(audit, recall_log(audit.store), "the log of recalls")
        _check(audit, receipt_log(audit.store), "the log of what was erased and removed")
    for key in audit.places.in_store:
        if (match := _CANDIDATE.fullmatch(key)) and match[1] in audit.names:
            try:
                read_candidate(audit.store, match[1], audit.keys)
            except IntegrityError as error:
                audit.in_store(kind_of(error.message), key, f"what is on trial of {match[1]}", error.message, _WITHDRAW)


def kind_of(problem: str) -> Kind:
    """What is wrong with a signed record, by what was said of it."""
    if "no trusted key has signed" in problem:
        return "signature"
    if "is missing" in problem:
        return "missing"
    return (
        "mismatch" if "in its place" in problem or "was replaced" in problem or "statement of" in problem else "corrupt"
    )


def _check(audit: Audited, log: SignedLog, what: str) -> None:
    _, problems = log.examined(audit.keys)
    for problem in problems:
        audit.in_store(kind_of(problem.problem), problem.key, what, problem.problem, _RESTORE)
    if problems or not audit.keys:
        return
    if text := check_and_remember(audit.root, audit.store, log):
        found = _ENTRY.search(text)
        key = log.key(int(found[1])) if found else log.prefix
        audit.in_store("truncated", key, what, text, _RESTORE)


def _held_against(audit: Audited, log: SignedLog, remembered: Iterable[tuple[int, str]], who: str) -> None:
    told = {one.object for one in audit.findings}
    for number, digest in dict.fromkeys(remembered):
        if log.key(number) in told:
            continue
        if text := anchor_problem(log, number, digest):
            audit.in_store("truncated", log.key(number), f"the log {log.prefix}", f"{text}; {who}", _RESTORE)
