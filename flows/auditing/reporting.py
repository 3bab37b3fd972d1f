"""The report of an audit: findings first, the state of every version, what is live, recalls, and who came of what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from components.errors import IntegrityError
from components.provenance.recalls import Recall, recalled_by, recalls
from components.provenance.stage_statement import StageStatement
from components.serving.origins import origin_ids, statement_ids
from components.serving.pointer import switch_log
from components.serving.releases import Release
from components.storage.contract import MissingObjectError
from flows.auditing.audited import Audited
from flows.auditing.findings import Finding
from flows.auditing.opening import opened_audit
from flows.auditing.registered import Version
from flows.auditing.verifying import Begin, Verified, examine, nobody
from flows.repository import without_credentials


@dataclass(frozen=True)
class VersionState:
    """One registered version as the audit has found it.

    Attributes:
        name: Of the model.
        number: From 1.
        state: ``live``, ``was live``, ``registered``, ``not tagged``, ``damaged`` (its attestation cannot be trusted)
            or ``missing``.
        live: Whether it is what is live.
        created: When its run was done; empty: not known.
        commit: That holds its lock.
        gate: What the gate said, in a word.
        origin: How its stages were attested: ``during the run``, ``afterwards``, ``in part``, ``not attested``.
        dirty: Whether code was in no commit; None: not known.
        recalls: Why it is recalled; empty: it is not.
        findings: What was found of it.
        lineage: Digests by kind.
    """

    name: str
    number: int
    state: str
    live: bool
    created: str
    commit: str
    gate: str
    origin: str
    dirty: bool | None
    recalls: tuple[str, ...]
    findings: tuple[Finding, ...]
    lineage: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.name}@v{self.number}"

    @property
    def whole(self) -> bool:
        """Whether nothing of it is damaged."""
        return all(one.severity != "damage" for one in self.findings)

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        kept = {key: value for key, value in vars(self).items() if key != "findings"}
        return {**kept, "recalls": list(self.recalls), "lineage": dict(self.lineage), "whole": self.whole}


@dataclass(frozen=True)
class Report:
    """What an audit has found.

    Attributes:
        at: When it ended, ISO 8601, UTC.
        checkout: Where.
        store: Address of the store.
        remote: Address of DVC's remote; empty: it was not looked at.
        verified: The verification.
        versions: Sorted by name, the newest first.
        recalls: In force.
        signers: Ids of keys that signed releases, and how many.
    """

    at: str
    checkout: str
    store: str
    remote: str
    verified: Verified
    versions: tuple[VersionState, ...]
    recalls: tuple[Recall, ...]
    signers: Mapping[str, int]

    @property
    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "at": self.at,
            "checkout": self.checkout,
            "store": self.store,
            "remote": self.remote,
            "objects": self.verified.objects,
            "bytes": self.verified.bytes,
            "seconds": round(self.verified.seconds, 3),
            "damage": len(self.verified.damaged),
            "notes": len(self.verified.findings) - len(self.verified.damaged),
            "findings": [one.record for one in self.verified.findings],
            "versions": [one.record for one in self.versions],
            "recalls": [one.record() for one in self.recalls],
            "signers": dict(self.signers),
        }

    @property
    def recalled_live(self) -> list[VersionState]:
        """What is live and recalled."""
        return [one for one in self.versions if one.live and one.recalls]


def audit_report(root: Path, *, workers: int | None = None, resume: bool = True, begin: Begin = nobody) -> Report:
    """Verify everything and say how it stands.

    Args:
        root: The checkout.
        workers: Objects read at once.
        resume: Go on from what an interrupted run has found good.
        begin: Is told how much there is to read.

    Raises:
        StorageError: The store or DVC's remote cannot be read.
        SettingsError: There is no key to trust.
    """
    with opened_audit(root) as audit:
        verified, statements = examine(audit, workers, resume, begin)
        in_force = _recalls(audit)
        live = {name: _live(audit, name) for name in audit.names}
        known = _Known(live, in_force, verified, statements)
        states = [_state(audit, version, known) for version in audit.versions]
        signers: dict[str, int] = {}
        for version in audit.versions:
            if version.release is not None:
                signers[version.release.signed_by] = signers.get(version.release.signed_by, 0) + 1
        return Report(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            checkout=str(root),
            store=without_credentials(audit.store.address),
            remote=audit.places.remote.address if audit.places.remote else "",
            verified=verified,
            versions=tuple(sorted(states, key=lambda one: (one.name, -one.number))),
            recalls=in_force,
            signers=signers,
        )


def _recalls(audit: Audited) -> tuple[Recall, ...]:
    """Those in force; that the log is not whole is a finding already."""
    try:
        return tuple(recalls(audit.store, audit.keys)) if audit.keys else ()
    except IntegrityError:
        return ()


def _live(audit: Audited, name: str) -> tuple[int | None, set[int]]:
    """What is live, and what ever was, as far as the log can be read."""
    entries, _ = switch_log(audit.store, name).examined(audit.keys)
    numbers = [int(one.body["version"]) for one in entries if isinstance(one.body.get("version"), int)]
    return (numbers[-1] if numbers else None), set(numbers)


class _Known(NamedTuple):
    """What was found out about all versions."""

    live: Mapping[str, tuple[int | None, set[int]]]
    in_force: tuple[Recall, ...]
    verified: Verified
    statements: Mapping[str, StageStatement]


def _state(audit: Audited, version: Version, known: _Known) -> VersionState:
    release = version.release
    now, ever = known.live[version.name]
    if release is None:
        missing = version.problem is not None and "has no release" in version.problem.message
        state = "missing" if missing else "damaged"
    elif version.number == now:
        state = "live"
    elif version.number in ever:
        state = "was live"
    else:
        state = "registered" if version.tag or not version.here else "not tagged"
    runs = audit.stages(version)
    attested = [known.statements[run.entry] for run in runs if run.entry in known.statements]
    bad = [] if release is None or not known.in_force else _inherited(audit, release, known.in_force, attested)
    return VersionState(
        name=version.name,
        number=version.number,
        state=state,
        live=version.number == now,
        created=release.created if release else "",
        commit=version.commit or "",
        gate="" if release is None else "passed" if release.gate.get("passed") else "not passed",
        origin=_origin(attested, len(runs)),
        dirty=release.dirty if release else None,
        recalls=tuple(str(one) for one in bad),
        findings=tuple(one for one in known.verified.findings if str(version) in one.versions),
        lineage=dict(release.lineage) if release else {},
    )


def _inherited(
    audit: Audited, release: Release, recalls: Sequence[Recall], attested: Sequence[StageStatement]
) -> list[Recall]:
    """The recalls that a release inherits; of statements that it lists and that are gone, the store's own tell."""
    ids = {digest for one in attested for digest in statement_ids(one)}
    with suppress(MissingObjectError, IntegrityError):  # told when its bytes are hashed
        ids |= origin_ids(audit.store, release)
    return recalled_by(release, recalls, ids)


def _origin(attested: list[StageStatement], stages: int) -> str:
    if not attested:
        return "not attested"
    ways = {one.attached for one in attested}
    return ways.pop() if len(ways) == 1 and len(attested) == stages else "in part"
