"""What somebody has asked about: what it is, which outputs of runs, and how surely that is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from components.errors import RecstillError
from flows.auditing.lock_history import Lock
from flows.auditing.records import output_of_kind
from flows.locked_outputs import FOLDER

if TYPE_CHECKING:
    from flows.auditing.lineage import Lineage
    from flows.auditing.shelf import Shelved

PACKAGE, DATASET, TEACHER = "package", "dataset", "teacher"
# What a package says of itself and that is no content.
NO_CONTENT = ("commit", "params", "version")


class UnknownError(RecstillError):
    """Nothing that is known here fits what was asked about."""


@dataclass
class Subject:
    """What was asked about.

    Attributes:
        text: As it was asked.
        what: What it is, in words.
        kind: ``file``, ``folder``, ``version``, ``dataset`` or ``digest``.
        made: Outputs of runs that it is, or is part of: path and MD5.
        read: MD5s of sources or modules that it is.
        ids: Everything that names its content: MD5 without ``.dir``, SHA-256, digests of whole artifacts.
        lock: The lock that it belongs to, where that is known.
        release: The release that it belongs to, where that is known.
        weak: Why it is known less surely than by its bytes; empty: it is.
        notes: What else has to be known.
    """

    text: str
    what: str
    kind: str
    made: list[tuple[str, str]] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    lock: Lock | None = None
    release: Shelved | None = None
    weak: str = ""
    notes: list[str] = field(default_factory=list)


def of_release(lineage: Lineage, subject: Subject, release: Shelved, kind: str = PACKAGE) -> Subject:
    """Say that the subject is, or belongs to, something of a release, with what weakens that."""
    subject.release = release
    subject.lock = subject.lock or lineage.lock_of(release)
    subject.ids |= {release.package, release.attestation}
    if release.problem:
        subject.notes.append(f"signature not trusted: {release.problem}")
    if release.commit and not lineage.history.has_commits([release.commit])[release.commit]:
        subject.notes.append(f"commit {release.commit[:12]} of {release} is not in this repository")
    if subject.lock is None:
        subject.notes.append(
            f"{release} brings no statements of its stages: only what its attestation says is known, "
            + ", ".join(f"{kind} {digest[:12]}" for kind, digest in release.lineage.items() if kind not in NO_CONTENT)
        )
        return subject
    return with_output(subject, release.name, kind)


def with_output(subject: Subject, scenario: str, kind: str) -> Subject:
    """Say that the subject is the output of a kind that its lock records.

    Raises:
        UnknownError: The lock records none.
    """
    runs = [run for run in (subject.lock.stages if subject.lock else ()) if run.scenario == scenario]
    found = output_of_kind(runs, kind)
    if found is None:
        raise UnknownError(f"{subject.lock} records no {kind} of {scenario}", "`git show` tells what it records.")
    _, path, md5 = found
    subject.made.append((path, md5))
    subject.ids.add(md5.removesuffix(FOLDER))
    return subject
