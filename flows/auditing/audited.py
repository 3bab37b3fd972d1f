"""What an audit works on: the places, the registered versions, what must be there, and what was found so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from components.provenance.signing import PublicKey
from components.storage.contract import ObjectStore
from flows.auditing.claims import Ledger
from flows.auditing.findings import Finding, Kind, Severity
from flows.auditing.hashing import Places
from flows.auditing.lock_history import LockHistory, StageRun
from flows.auditing.registered import Tag, Version
from flows.repository import without_credentials

Say = Callable[[str], None]
COPY = "`recstill verify --repair --from ADDRESS` takes it from another store; else put it back from a copy."


@dataclass
class Audited:
    """One audit on its way.

    Attributes:
        root: The checkout.
        places: The store and DVC's remote.
        keys: Whose signatures count.
        tags: Of git, by name.
        versions: Every registered version that is known.
        chosen: Those to look at.
        whole: Whether all are chosen, so that what nobody refers to can be told.
        locks: Every ``dvc.lock`` of the repository.
        ledger: What must be there.
        findings: What was found so far.
    """

    root: Path
    places: Places
    keys: Sequence[PublicKey]
    tags: Mapping[str, Tag]
    versions: list[Version]
    chosen: list[Version]
    whole: bool
    locks: LockHistory
    ledger: Ledger = field(default_factory=Ledger)
    findings: list[Finding] = field(default_factory=list)
    _stages: dict[str, list[StageRun]] = field(default_factory=dict, repr=False)

    @property
    def store(self) -> ObjectStore:
        """The object store."""
        return self.places.store

    def stages(self, version: Version) -> list[StageRun]:
        """What the lock of a version's commit says of its scenario; nothing when it cannot be read."""
        if (known := self._stages.get(str(version))) is not None:
            return known
        lock = self.locks.at([version.commit])[version.commit] if version.here and version.commit else None
        runs = [run for run in lock.stages if run.scenario == version.name] if lock else []
        return self._stages.setdefault(str(version), runs)

    @property
    def names(self) -> list[str]:
        """The models of the chosen versions."""
        return sorted({version.name for version in self.chosen})

    def in_store(
        self,
        kind: Kind,
        key: str,
        what: str,
        problem: str,
        remedy: str = COPY,
        *,
        versions: Sequence[str] = (),
        severity: Severity = "damage",
    ) -> None:
        """Note a finding about an object of the store."""
        where = without_credentials(self.store.address)
        self.findings.append(Finding(kind, "store", key, where, what, problem, remedy, tuple(versions), severity))

    def in_git(
        self,
        kind: Kind,
        ref: str,
        what: str,
        problem: str,
        remedy: str = "",
        *,
        versions: Sequence[str] = (),
        severity: Severity = "damage",
    ) -> None:
        """Note a finding about the repository."""
        where = str(self.root)
        self.findings.append(Finding(kind, "git", ref, where, what, problem, remedy, tuple(versions), severity))
