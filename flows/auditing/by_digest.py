"""What has a digest: looked for in the locks, the releases, the manifests of soft labels, and the signed statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from components.errors import RecstillError
from flows.auditing.records import Recorded, kind_of, output_of_kind
from flows.auditing.subject import DATASET, NO_CONTENT, PACKAGE, TEACHER, Subject, UnknownError, of_release, with_output
from flows.locked_outputs import FOLDER

if TYPE_CHECKING:
    from flows.auditing.lineage import Lineage
    from flows.auditing.shelf import Shelved


_MD5 = 32
Take = Callable[[Subject], bool]


def resolve_digest(lineage: Lineage, text: str, prefix: str) -> Subject:
    """What has a digest.

    Args:
        lineage: What is known.
        text: As it was asked.
        prefix: The digest in small letters, or its first digits.

    Raises:
        UnknownError: Nothing that is known here.
        RecstillError: Several digests begin so.
    """
    known = _named(lineage, prefix) or _told(lineage, prefix)
    if len(known) > 1:
        listed = ", ".join(sorted(known)[:5])
        raise RecstillError(f"{text} begins {len(known)} digests: {listed}", "Give more digits.")
    for one, take in known.items():
        subject = Subject(text, f"digest {one}", "digest", ids={one})
        take(subject)
        if subject.made or subject.read or subject.release:
            return subject
    raise UnknownError(
        f"nothing known here has the digest {text}",
        f"Searched: {len(lineage.history.locks)} versions of dvc.lock, {len(lineage.shelf.releases)} releases, the "
        f"statements and {len(lineage.shelf.manifests)} manifests of soft labels in {lineage.shelf.store.address}.",
    )


def _named(lineage: Lineage, prefix: str) -> dict[str, Take]:
    """Digests that locks, releases and manifests name, and what to make of each."""
    known: dict[str, Take] = {}
    for md5 in lineage.records.expand(prefix):
        known.setdefault(md5.removesuffix(FOLDER), partial(in_locks, lineage, md5=md5, code=True))
    for release in lineage.shelf.releases:
        for kind, one in _ids_of(release):
            if one.startswith(prefix):
                known.setdefault(one, partial(_as_part, lineage, release=release, kind=kind))
    for note in lineage.shelf.manifests:
        whole = ((DATASET, note.dataset), (TEACHER, note.teacher), ("", note.id))
        for kind, one in (*whole, *(("", part) for part in note.parts.values())):
            if one.startswith(prefix):
                known.setdefault(one, partial(by_manifest, lineage, md5=note.md5, kind=kind))
    return known


def _told(lineage: Lineage, prefix: str) -> dict[str, Take]:
    """Digests that only records of runs tell, or signed statements."""
    known: dict[str, Take] = {}
    for one, recorded, kind in _by_records_here(lineage, prefix):
        known.setdefault(one, partial(_take, recorded=recorded, kind=kind))
    if not known and len(prefix) == _MD5:
        for folder, _ in lineage.local.folders_with(prefix):
            known.setdefault(prefix, partial(in_locks, lineage, md5=folder))
    if not known:
        for one in _in_statements(lineage, prefix):
            known.setdefault(one, partial(by_statements, lineage, digest=one))
    return known


def in_locks(lineage: Lineage, subject: Subject, md5: str, *, code: bool = False) -> bool:
    """By an MD5 that a lock names: something made, or a source; a module too, where that may be meant."""
    lock = subject.lock
    makers = lineage.records.makers(md5, first=lock)
    if makers:
        run = makers[0].run
        path = next(path for path, one in run.outputs.items() if one == md5)
        subject.made.append((path, md5))
        subject.ids.add(md5.removesuffix(FOLDER))
        return True
    reader = lineage.records.readers(md5)
    if reader is None or (not code and md5 not in reader.run.inputs.values()):
        return False
    path = next(path for path, one in (reader.run.inputs | reader.run.code).items() if one == md5)
    what = "a source that {} ran on" if md5 in reader.run.inputs.values() else "code that {} ran"
    subject.read.append(md5)
    subject.notes.append(
        f"it is {path}, {what.format(reader.run.address)}: nothing recorded made it; "
        "`recstill impact` shows what came of it"
    )
    return True


def _as_part(lineage: Lineage, subject: Subject, release: Shelved, kind: str) -> bool:
    """A digest that a release names."""
    lock = lineage.lock_of(release)
    runs = [run for run in (lock.stages if lock else ()) if run.scenario == release.name]
    digest = next(iter(subject.ids))
    if kind in (PACKAGE, ""):
        of_release(lineage, subject, release)
    elif found := output_of_kind(runs, kind):
        _, path, md5 = found
        subject.lock, subject.release = lock, release
        subject.made.append((path, md5))
        subject.ids.add(md5.removesuffix(FOLDER))
        subject.what = f"{kind} {digest}, of {release}"
    elif not by_statements(lineage, subject, digest):
        of_release(lineage, subject, release)
        subject.notes.append(f"it is the {kind} of {release}; which file that is, nothing here says")
    return True


def by_manifest(lineage: Lineage, subject: Subject, md5: str, kind: str = "") -> bool:
    """The soft labels of a manifest, or the teacher or data set that they were made from."""
    makers = lineage.records.makers(md5)
    if not makers:
        lineage.use_statements(md5)
        makers = lineage.records.makers(md5)
    for recorded in makers:
        for path, one in recorded.run.inputs.items() if kind else recorded.run.outputs.items():
            if (kind and kind_of(path) == kind) or (not kind and one == md5):
                subject.made.append((path, one))
                subject.ids.add(one.removesuffix(FOLDER))
                subject.lock = subject.lock or recorded.lock
                return True
    return False


def _take(subject: Subject, recorded: Recorded, kind: str) -> bool:
    subject.lock = recorded.lock
    with_output(subject, recorded.run.scenario, kind)
    return True


def by_statements(lineage: Lineage, subject: Subject, digest: str) -> bool:
    """By a digest that a signed statement names: of a file, or of an artifact as a whole."""
    for statement in lineage.shelf.statements(digest):
        names = [path for path, one in statement.subjects.items() if digest in (one.sha256, one.md5)]
        kinds = [kind for kind, one in statement.digests.items() if one == digest]
        for path, md5 in statement.outputs.items():
            whole = kind_of(path) in kinds
            inside = [name for name in names if name == path or name.startswith(f"{path}/")]
            if not whole and not inside:
                continue
            if not lineage.records.makers(md5):
                lineage.use_statements()
            subject.made.append((path, md5))
            subject.ids.add(md5.removesuffix(FOLDER))
            subject.notes.append(f"a signed statement names it: {inside[0] if inside else path}")
            return True
    return False


def _in_statements(lineage: Lineage, prefix: str) -> set[str]:
    found: set[str] = set()
    for statement in lineage.shelf.statements(prefix):
        files = (one for file in statement.subjects.values() for one in (file.sha256, file.md5))
        found |= {one for one in (*files, *statement.digests.values()) if one.startswith(prefix)}
    return found


def _by_records_here(lineage: Lineage, prefix: str) -> Iterator[tuple[str, Recorded, str]]:
    """Digests of whole artifacts that the records of runs tell, as far as their bytes lie here."""
    for lock in lineage.records.locks:
        for run in lock.stages:
            for path, md5 in run.outputs.items():
                if path.endswith("/lineage.json") and isinstance(known := lineage.local.document(md5, path), dict):
                    yield from (
                        (str(one), Recorded(run, lock), kind)
                        for kind, one in known.items()
                        if str(one).startswith(prefix)
                    )


def _ids_of(release: Shelved) -> Iterator[tuple[str, str]]:
    yield PACKAGE, release.package
    yield "", release.attestation
    yield from (("", one) for one in release.files.values())
    yield from ((kind, one) for kind, one in release.lineage.items() if kind not in NO_CONTENT)
