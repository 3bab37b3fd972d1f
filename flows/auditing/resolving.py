"""What somebody means: a file or folder by its bytes, a digest or its first digits, a version, a data set.

A file is known by its content alone, wherever it lies and whatever it is called.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import RecstillError
from flows.auditing.by_digest import by_manifest, by_statements, in_locks, resolve_digest
from flows.auditing.subject import DATASET, NO_CONTENT, PACKAGE, TEACHER, Subject, UnknownError, of_release, with_output
from flows.locked_outputs import FOLDER, entries, listing, listing_md5
from flows.registry import registered, shown
from flows.repository import GitError, git, is_repository

if TYPE_CHECKING:
    from flows.auditing.lineage import Lineage

_VERSION = re.compile(r"([A-Za-z0-9_-]+)@v([1-9]\d{0,8})(?:\.0\.0)?")
_REVISION = re.compile(r"([A-Za-z0-9_-]+)@(.+)")
_DIGEST = re.compile(r"(?:sha256:|md5:)?([0-9a-f]{8,64})(\.dir)?", re.IGNORECASE)
_RECORD = "package.json"
_CHUNK = 1 << 20
_FEWEST = 8


def resolve(lineage: Lineage, text: str) -> Subject:
    """What is meant.

    Args:
        lineage: What is known.
        text: A path, a digest or at least its first 8 digits, ``NAME@vN``, or ``SCENARIO@REVISION``.

    Raises:
        UnknownError: Nothing fits; the message says what was searched.
        RecstillError: Several things fit, or the file cannot be read.
    """
    path = Path(text)
    if not text.strip():
        raise UnknownError("nothing is named", "Give a path, a digest, NAME@vN, or SCENARIO@REVISION.")
    if version := _VERSION.fullmatch(text):
        found = _version(lineage, text, version[1], int(version[2]))
        if found is not None:
            return found
    if path.exists():
        return _folder(lineage, text, path) if path.is_dir() else _file(lineage, text, path)
    if digest := _DIGEST.fullmatch(text):
        return resolve_digest(lineage, text, digest[1].lower())
    if revision := _REVISION.fullmatch(text):
        return _revision(lineage, text, revision[1], revision[2])
    raise UnknownError(
        f"{text!r} is no file, no digest and no version",
        f"Give a path, at least {_FEWEST} digits of a digest, NAME@vN, or SCENARIO@REVISION.",
    )


def _version(lineage: Lineage, text: str, name: str, version: int) -> Subject | None:
    release = lineage.shelf.release(name, version)
    if release is not None:
        return of_release(lineage, Subject(text, f"version {release}", "version"), release)
    commit = registered(lineage.root, name).get(version)
    if commit is None:
        if is_repository(lineage.root) and not _commit(lineage.root, f"v{version}"):
            known = ", ".join(str(one) for one in lineage.shelf.releases if one.name == name) or "none"
            raise UnknownError(f"{shown(name, version)} is not registered; of {name} there is: {known}")
        return None
    lock = lineage.history.at([commit])[commit]
    subject = Subject(text, f"version {shown(name, version)}", "version", lock=lock)
    subject.notes.append(f"the release of {shown(name, version)} is not in {lineage.shelf.store.address}")
    return with_output(subject, name, PACKAGE)


def _file(lineage: Lineage, text: str, path: Path) -> Subject:
    md5, sha256, size = _hashed(path)
    subject = Subject(text, f"file {path.name}, {size:,} bytes", "file", ids={md5, sha256})
    if _by_content(lineage, subject, md5, sha256) or _by_metadata(lineage, subject, path):
        return subject
    raise UnknownError(
        f"nothing is known about the bytes of {path} (SHA-256 {sha256}, MD5 {md5})",
        f"Searched: {len(lineage.history.locks)} versions of dvc.lock and the folders listed in DVC's cache here, "
        f"{len(lineage.shelf.releases)} releases, the signed statements and {len(lineage.shelf.manifests)} manifests "
        f"of soft labels in {lineage.shelf.store.address}, and the file's own metadata.",
    )


def _folder(lineage: Lineage, text: str, path: Path) -> Subject:
    files = entries(path)
    md5 = listing_md5(listing(files))
    subject = Subject(text, f"folder {path.name}, {len(files)} files", "folder", ids={md5.removesuffix(FOLDER)})
    if in_locks(lineage, subject, md5):
        return subject
    if (path / _RECORD).is_file():
        _, package, _ = _hashed(path / _RECORD)
        for release in lineage.shelf.releases:
            if release.package == package:
                return of_release(lineage, subject, release)
    # A package that was fetched has more files than the one that was made, a copy may lack some.
    for name in sorted(files, key=lambda name: -(path / name).stat().st_size):
        one, sha256, _ = _hashed(path / name)
        if _by_content(lineage, subject, one, sha256):
            subject.weak = f"the folder as a whole is not known, its file {name} is"
            return subject
    raise UnknownError(
        f"nothing is known about {path}, neither as a folder (MD5 {md5}) nor about any of its {len(files)} files",
        f"Searched: {len(lineage.history.locks)} versions of dvc.lock, {len(lineage.shelf.releases)} releases and the "
        f"signed statements in {lineage.shelf.store.address}.",
    )


def _revision(lineage: Lineage, text: str, scenario: str, revision: str) -> Subject:
    commit = _commit(lineage.root, revision)
    if not commit:
        raise UnknownError(f"{revision!r} is no revision of this repository", "`git log --oneline --all` lists them.")
    lock = lineage.history.at([commit])[commit]
    if lock is None:
        raise UnknownError(f"commit {commit[:12]} has no dvc.lock", "Name a commit that a run was committed in.")
    subject = Subject(text, f"{DATASET} of {scenario} at {commit[:12]}", DATASET, lock=lock)
    return with_output(subject, scenario, DATASET)


def _by_content(lineage: Lineage, subject: Subject, md5: str, sha256: str) -> bool:
    """Find out what a file is, by its two digests."""
    if in_locks(lineage, subject, md5):
        return True
    holding = [one for one in lineage.shelf.releases if sha256 in one.files.values() or one.attestation == sha256]
    if holding:
        of_release(lineage, subject, holding[0])
        name = next((name for name, one in holding[0].files.items() if one == sha256), "attestation")
        subject.notes.append(f"it is {name} of {', '.join(map(str, holding[:5]))}{' and others' * (len(holding) > 5)}")
        return True
    for folder, name in lineage.local.folders_with(md5):
        if in_locks(lineage, subject, folder):
            subject.notes.append(f"it is {name} of {subject.made[-1][0]}")
            return True
    for note in lineage.shelf.manifests:
        for name, one in note.parts.items():
            if one == sha256 and by_manifest(lineage, subject, note.md5):
                subject.notes.append(f"it is {name} of the soft labels {note.id[:12]}")
                return True
    return by_statements(lineage, subject, sha256) or in_locks(lineage, subject, md5, code=True)


def _by_metadata(lineage: Lineage, subject: Subject, path: Path) -> bool:
    """The weakest way: what an ONNX model says of itself, which anybody can write into it."""
    if path.suffix.lower() != ".onnx":
        return False
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception:  # whatever the bytes are, they are no model
        return False
    said = {
        one.key.removeprefix("recstill."): one.value for one in model.metadata_props if one.key.startswith("recstill.")
    }
    for kind, digest in sorted(said.items(), key=lambda pair: _SURE.get(pair[0], 9)):
        if kind in NO_CONTENT or not _DIGEST.fullmatch(digest):
            continue
        try:
            found = resolve_digest(lineage, digest, digest)
        except RecstillError:
            continue
        subject.made, subject.read, subject.lock, subject.release = found.made, found.read, found.lock, found.release
        subject.weak = (
            f"these bytes are not known; the file says of itself that its {kind} is {digest[:12]}, "
            "and anybody can write that into a file"
        )
        return True
    return False


# The nearest to the file first.
_SURE = {"variant": 0, "pruned": 1, "student": 2, TEACHER: 3, DATASET: 4}


def _commit(root: Path, revision: str) -> str:
    if not is_repository(root) or revision.startswith("-"):
        return ""
    try:
        return git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").strip()
    except GitError:
        return ""


def _hashed(path: Path) -> tuple[str, str, int]:
    """MD5, SHA-256 and size of a file, read once.

    Raises:
        RecstillError: It cannot be read.
    """
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                md5.update(chunk)
                sha256.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise RecstillError(f"{path} cannot be read: {error.strerror}", "Check its permissions.") from None
    return md5.hexdigest(), sha256.hexdigest(), size
