"""What came of something: every run, artifact and version that descends from it by content, the live ones first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from components.errors import IntegrityError
from components.storage.contract import ObjectStore
from flows.auditing.lock_history import Lock
from flows.auditing.lock_parsing import StageRun
from flows.auditing.records import kind_of, main_output, role_of
from flows.auditing.subject import NO_CONTENT, PACKAGE, TEACHER, Subject
from flows.locked_outputs import FOLDER

if TYPE_CHECKING:
    from components.provenance.recalls import Recall
    from components.serving.pointer import Switch
    from flows.auditing.lineage import Lineage
    from flows.auditing.shelf import Shelved

_ORDER = ("live", "was live", "registered", "missing")


@dataclass(eq=False)
class AffectedVersion:
    """A registered version that descends.

    Attributes:
        name: Of the model.
        version: Its number.
        state: ``live``, ``was live``, ``registered``, or ``missing``: its release is not in the store.
        made: When.
        commit: Of its lock.
        through: Kinds of artifacts that descend and that it is made of.
        package: Id of its package.
        attestation: SHA-256 of its attestation.
        problem: Why its attestation is not to be trusted; empty: it is.
        recalls: Those that it inherits.
    """

    name: str
    version: int
    state: str
    made: str
    commit: str
    through: list[str]
    package: str = ""
    attestation: str = ""
    problem: str = ""
    recalls: list[Recall] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name}@v{self.version}"


@dataclass(eq=False)
class AffectedArtifact:
    """Something made that descends and is in no registered version.

    Attributes:
        scenario: Whose.
        kind: What it is, such as ``student``.
        md5: As the lock names it.
        stage: What made it.
        where: Commits, branches and work trees whose lock has it.
    """

    scenario: str
    kind: str
    md5: str
    stage: str
    where: list[str]


@dataclass(eq=False)
class Impact:
    """All that descends.

    Attributes:
        subject: What was asked about.
        versions: Live ones first.
        artifacts: What is in no version; compressed ones first.
        runs: How many runs of stages descend.
        refused: Retrainings that the gate has refused and that had this data set: scenario and key.
        digests: Everything that names what descends, and the subject itself: MD5s without ``.dir``, domain digests.
        notes: What has to be known.
    """

    subject: Subject
    versions: list[AffectedVersion]
    artifacts: list[AffectedArtifact]
    runs: int
    refused: list[tuple[str, str]]
    digests: set[str]
    notes: list[str]

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        from flows.auditing.lineage_tree import subject_record

        return {
            "asked": subject_record(self.subject),
            "versions": [
                {**vars(one), "recalls": [recall.record() for recall in one.recalls]} for one in self.versions
            ],
            "artifacts": [vars(one) for one in self.artifacts],
            "runs": self.runs,
            "refused": [{"scenario": scenario, "key": key} for scenario, key in self.refused],
            "notes": self.notes,
        }


def impact(lineage: Lineage, subject: Subject) -> Impact:
    """Everything that descends from a subject.

    Args:
        lineage: What is known.
        subject: A data set, a teacher, a source, a module, or any other content.
    """
    descent = _Descent(lineage, subject)
    versions = descent.versions()
    covered = {md5 for one in versions for md5 in descent.covered.get(str(one), ())}
    return Impact(
        subject,
        versions,
        descent.artifacts(covered),
        len(descent.runs),
        descent.refused(),
        descent.digests,
        [*dict.fromkeys([*subject.notes, *descent.notes, *lineage.notes])],
    )


class _Descent:
    """The graph downwards, followed until nothing new is found."""

    def __init__(self, lineage: Lineage, subject: Subject) -> None:
        self.lineage, self.subject = lineage, subject
        self.notes: list[str] = []
        self.covered: dict[str, set[str]] = {}
        self.md5s = {md5 for _, md5 in subject.made} | set(subject.read)
        self.digests = {one for one in subject.ids if one} | {md5.removesuffix(FOLDER) for md5 in self.md5s}
        self.runs: dict[int, StageRun] = {}
        self._locks = lineage.history.at([one.commit for one in lineage.shelf.releases if one.commit])
        for release in lineage.shelf.releases:
            if self._locks.get(release.commit) is None:  # a commit of another clone: its statements say the same
                self._locks[release.commit] = lineage.lock_of(release)
            lineage.records.add(self._locks[release.commit])
        if not lineage.records.locks:
            lineage.use_statements()
        self._digests: dict[str, set[str]] = {}
        self._waiting: list[str] = []
        self._readers: dict[str, list[StageRun]] = {}
        self._warm: dict[str, list[StageRun]] = {}
        self._index()
        self._follow()

    def versions(self) -> list[AffectedVersion]:
        """Registered versions that descend: by their lock, or by what their attestation says they came from."""
        shelf, found = self.lineage.shelf, []
        switches: dict[str, list[Switch]] = {}
        for release in shelf.releases:
            lock = self._locks.get(release.commit)
            through = self._through(release, lock)
            if not through:
                continue
            if release.name not in switches:
                switches[release.name] = self._switches(shelf.store, release.name)
            found.append(
                AffectedVersion(
                    release.name,
                    release.version,
                    _state(switches[release.name], release.version),
                    release.created,
                    release.commit,
                    through,
                    release.package,
                    release.attestation,
                    release.problem,
                    shelf.inherited(release, self.lineage.recalls),
                )
            )
        known = {(one.name, one.version) for one in shelf.releases}
        for lock in self.lineage.records.locks:
            for shown in lock.versions:
                name, _, number = shown.rpartition("@v")
                runs = [run for run in lock.stages if run.scenario == name and id(run) in self.runs]
                if runs and (name, int(number)) not in known:
                    commit = lock.committed
                    through = list(dict.fromkeys(role_of(run) for run in runs))
                    found.append(
                        AffectedVersion(
                            name,
                            int(number),
                            "missing",
                            commit.at if commit else "",
                            commit.id if commit else "",
                            through,
                        )
                    )
                    self.covered.setdefault(shown, set()).update(md5 for run in runs for md5 in run.outputs.values())
        return sorted(found, key=lambda one: (_ORDER.index(one.state), one.name, -one.version))

    def artifacts(self, covered: Iterable[str]) -> list[AffectedArtifact]:
        """What descends and is in no version; that which can be served first."""
        skip = set(covered)
        found: dict[str, AffectedArtifact] = {}
        for lock in self.lineage.records.locks:
            for run in lock.stages:
                if id(run) not in self.runs:
                    continue
                path, md5 = main_output(run)
                if md5 and md5 not in skip:
                    one = found.setdefault(md5, AffectedArtifact(run.scenario, kind_of(path), md5, run.address, []))
                    one.where += [place for place in _places(lock) if place not in one.where]
        made = {kind: number for number, kind in enumerate(_kinds(self.runs.values()))}
        return sorted(found.values(), key=lambda one: (-made[one.kind], one.scenario, one.where))

    def refused(self) -> list[tuple[str, str]]:
        """Retrainings that were refused and had seen the data set."""
        from flows.runs import read_run

        shelf, found = self.lineage.shelf, []
        for entry in shelf.store.list("runs/"):
            scenario, _, file = entry.key.removeprefix("runs/").partition("/")
            try:
                run = read_run(shelf.store, scenario, file.removesuffix(".json"), shelf.keys)
            except IntegrityError:
                continue
            if run is not None and run.status == "refused" and run.dataset in self.digests:
                found.append((scenario, run.key))
        return found

    def _index(self) -> None:
        seen: set[int] = set()
        for lock in self.lineage.records.locks:
            for run in lock.stages:
                if id(run) in seen:
                    continue
                seen.add(id(run))
                for md5 in run.inputs.values():
                    self._readers.setdefault(md5, []).append(run)
                if self.subject.read and not self.md5s.isdisjoint(run.code.values()):
                    self._take(run)
                if run.warm_start:
                    self._warm.setdefault(run.warm_start, []).append(run)
        for release in self.lineage.shelf.releases:
            if of := self._locks.get(release.commit):
                outputs = _outputs(of, release.name)
                for kind, digest in ((PACKAGE, release.package), *release.lineage.items()):
                    if kind in outputs:
                        self._digests.setdefault(outputs[kind], set()).add(digest)

    def _take(self, run: StageRun) -> None:
        if id(run) not in self.runs:
            self.runs[id(run)] = run
            self._waiting += run.outputs.values()

    def _follow(self) -> None:
        manifests = {note.md5: note for note in self.lineage.shelf.manifests}
        self._waiting += self.md5s
        done: set[str] = set()
        while self._waiting:
            md5 = self._waiting.pop()
            if md5 in done:
                continue
            done.add(md5)
            self.digests.add(md5.removesuffix(FOLDER))
            self.digests |= self._digests.get(md5, set())
            if note := manifests.get(md5):
                self.digests |= {note.id, *note.parts.values()}
            for run in self._readers.get(md5, ()):
                self._take(run)
                # The manifest of the labels that it made names the teacher that it read.
                for made in run.outputs.values():
                    if (note := manifests.get(made)) and kind_of(_path(run, md5)) == TEACHER:
                        self.digests.add(note.teacher)
            for digest in self.digests & self._warm.keys():
                for run in self._warm.pop(digest):
                    self._take(run)
        self.md5s |= done

    def _through(self, release: Shelved, lock: Lock | None) -> list[str]:
        kinds = [kind for kind, digest in release.lineage.items() if digest in self.digests and kind not in NO_CONTENT]
        if lock is not None:
            runs = [run for run in lock.stages if run.scenario == release.name]
            touched = [run for run in runs if id(run) in self.runs]
            if _outputs(lock, release.name).get(PACKAGE) in self.md5s:
                self.covered[str(release)] = {md5 for run in touched for md5 in run.outputs.values()}
                kinds += [role_of(run) for run in touched]
        if not self.digests.isdisjoint((release.package, release.attestation, *release.files.values())):
            kinds.append(PACKAGE)
        return list(dict.fromkeys(kinds))

    def _switches(self, store: ObjectStore, name: str) -> list[Switch]:
        from flows.auditing.switches import switches_of

        try:
            return switches_of(store, name, self.lineage.shelf.keys)
        except IntegrityError as error:
            self.notes.append(f"what is live of {name} is not known: {error.message}")
            return []


def _state(switches: list[Switch], version: int) -> str:
    if switches and switches[-1].version == version:
        return "live"
    return "was live" if any(one.version == version for one in switches) else "registered"


def _outputs(lock: Lock, scenario: str) -> dict[str, str]:
    """MD5 by kind of what a scenario's runs made."""
    runs = (run for run in lock.stages if run.scenario == scenario)
    return {kind_of(path): md5 for run in runs for path, md5 in run.outputs.items()}


def _path(run: StageRun, md5: str) -> str:
    return next((path for path, one in run.inputs.items() if one == md5), "")


def _kinds(runs: Iterable[StageRun]) -> list[str]:
    """Kinds of outputs, those that are made of others after them."""
    depth: dict[str, int] = {}
    every = list(runs)
    for _ in range(len({run.stage for run in every})):
        for run in every:
            below = max((depth.get(kind_of(path), 0) for path in run.inputs), default=0)
            for path in run.outputs:
                depth[kind_of(path)] = max(depth.get(kind_of(path), 0), below + 1)
    return sorted(depth, key=lambda kind: (depth[kind], kind))


def _places(lock: Lock) -> list[str]:
    refs = [
        ref.removeprefix("refs/heads/").removeprefix("refs/") for ref in lock.refs if not ref.startswith("refs/tags/")
    ]
    places = [*refs, *(str(folder) for folder in lock.where)]
    return places or [one.id[:12] for one in lock.commits[:1]] or [str(lock)]
