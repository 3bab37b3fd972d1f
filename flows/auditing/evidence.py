"""One folder that shows a third party where a version comes from, and can be checked with public tools alone."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.errors import SettingsError, StorageError
from components.storage.atomic import new_folder
from components.storage.contract import ObjectStore
from components.storage.digests import file_digest
from flows.locked_outputs import LOCK, lock_stages
from flows.repository import git, git_bytes, store_of
from flows.trust import trusted

if TYPE_CHECKING:
    from components.provenance.recalls import Recall
    from components.provenance.signed_log import SignedLog
    from components.provenance.signing import PublicKey
    from components.provenance.stage_statement import StageStatement
    from components.serving.releases import Release

SUMS = "SHA256SUMS"
README = "README.md"
_RECORD = (LOCK, "params.yaml", "requirements.lock")


@dataclass(frozen=True)
class Evidence:
    """What was written.

    Attributes:
        folder: Where.
        release: Of what.
        files: SHA-256 by path below the folder, all but that of the sums themselves.
        problems: Where lock, statements, release and bill contradict each other; none when all is well.
        recalled: The recalls that the version has inherited.
    """

    folder: Path
    release: Release
    files: dict[str, str]
    problems: list[str]
    recalled: list[Recall]


class _Key(NamedTuple):
    """A public key and what its DER form hashes to."""

    id: str
    fingerprint: str


class _Listing(NamedTuple):
    """A tree of git as text, and the name of the entry that leads to the next one."""

    file: str
    next: str


def write_evidence(root: Path, name: str, version: int | None, folder: Path | None) -> Evidence:
    """Gather a version's evidence into a folder, which appears when it is whole; an older one in its place is replaced.

    Args:
        root: The checkout.
        name: Of the model.
        version: None: the newest one.
        folder: Where to; None: ``evidence/NAME-vN`` below the checkout's ``.recstill``.

    Raises:
        IntegrityError: A byte of the release is missing or damaged, or a signature is of nobody who is trusted.
        SettingsError: The folder holds something else.
        GitError: The commit is not here.
        StorageError: There is no such version, the store cannot be read, or the folder not written.
    """
    from components.provenance.recalls import recall_log
    from components.serving.pointer import switch_log
    from components.serving.releases import read_release, versions
    from flows.auditing.recalled import inherited, recalls_now

    store, keys = store_of(root), trusted(root)
    if version is None:
        known = versions(store, name)
        if not known:
            raise StorageError(f"{store.address} has no release of {name}", "`recstill versions` lists what there is.")
        version = known[-1]
    release = read_release(store, name, version, keys)
    place = folder or root / ".recstill" / "evidence" / f"{name}-v{version}"
    _require_free(place)
    recalled = inherited(store, release, recalls_now(root, store).recalls)
    with new_folder(place) as new:
        statements, bill = _release(store, release, keys, new)
        listings = _record(root, release, new / "record")
        logs = {"switches": switch_log(store, name), "recalls": recall_log(store)}
        entries = {kind: _log(log, keys, new / kind) for kind, log in logs.items()}
        signers = {release.signed_by, *(one.signed_by for one in statements)}
        signers.update(*(found for _, found in entries.values()))
        shown_keys = _keys(keys, signers, new / "keys")
        problems = _problems(root, release, statements, bill)
        text = _template().render(
            version=str(release),
            release=release,
            recstill=version_of("recstill"),
            written=datetime.now(UTC).date().isoformat(),
            problems=problems,
            recalled=recalled,
            statements=statements,
            bom=bill,
            switches=entries["switches"][0],
            recalls=entries["recalls"][0],
            logs=[kind for kind, (count, _) in entries.items() if count],
            keys=shown_keys,
            listings=listings,
            requirements=(new / "record" / _RECORD[-1]).is_file(),
            sha256_objects=len(release.commit) == 64,
            of_package=_of_package(release),
        )
        (new / README).write_text(text, encoding="utf-8")
        digests = _sums(new)
    return Evidence(place, release, digests, problems, recalled)


def _release(
    store: ObjectStore, release: Release, keys: Sequence[PublicKey], new: Path
) -> tuple[list[StageStatement], dict[str, Any] | None]:
    """The files of the release, each checked against the attestation; its statements and its bill."""
    import json

    from components.provenance.stage_statement import read_bundle
    from components.serving.package_folder import ATTESTATION, BOM, BUNDLE
    from components.serving.releases import attestation_key, fetch_release

    with tempfile.TemporaryDirectory(prefix="recstill-") as scratch:
        shutil.copytree(fetch_release(store, release, Path(scratch)), new / "release")
    envelope = store.get(attestation_key(release.name, release.version), release.attestation)
    (new / "release" / ATTESTATION).write_bytes(envelope)
    bundle, bill = new / "release" / BUNDLE, new / "release" / BOM
    statements = read_bundle(bundle.read_bytes(), keys, f"{release}: {BUNDLE}") if bundle.is_file() else []
    return statements, json.loads(bill.read_bytes()) if bill.is_file() else None


def _record(root: Path, release: Release, folder: Path) -> list[_Listing]:
    """The commit as git keeps it, its trees down to the checkout, and the files of it that say what was run."""
    folder.mkdir()
    (folder / "commit").write_bytes(git_bytes(root, "cat-file", "commit", release.commit))
    parts = [part for part in git(root, "rev-parse", "--show-prefix").strip().split("/") if part]
    for file in _RECORD:
        if git(root, "ls-tree", "--name-only", release.commit, "--", file).strip():
            (folder / file).write_bytes(git_bytes(root, "cat-file", "blob", f"{release.commit}:./{file}"))
    listings = []
    for depth in range(len(parts) + 1):
        name = "tree.txt" if not depth else f"tree-{depth}.txt"
        tree = f"{release.commit}:{'/'.join(parts[:depth])}"
        # Of the whole repository, wherever in it the checkout lies.
        (folder / name).write_bytes(git_bytes(root, "ls-tree", "--full-tree", tree))
        listings.append(_Listing(f"record/{name}", parts[depth] if depth < len(parts) else ""))
    return listings


def _log(log: SignedLog, keys: Sequence[PublicKey], folder: Path) -> tuple[int, set[str]]:
    """A log's entries, checked and copied; how many there are, and who signed them."""
    entries = log.entries(keys)
    if entries:
        folder.mkdir()
    for entry in entries:
        (folder / Path(log.key(entry.number)).name).write_bytes(log.store.get(log.key(entry.number), entry.digest))
    return len(entries), {entry.signed_by for entry in entries}


def _keys(keys: Iterable[PublicKey], signers: set[str], folder: Path) -> list[_Key]:
    from cryptography.hazmat.primitives import serialization

    folder.mkdir()
    shown = []
    for key in sorted((one for one in keys if one.id in signers), key=lambda one: one.id):
        (folder / f"{key.id}.pem").write_text(key.pem, encoding="ascii")
        der = serialization.load_pem_public_key(key.pem.encode()).public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        shown.append(_Key(key.id, hashlib.sha256(der).hexdigest()))
    return shown


def _problems(
    root: Path, release: Release, statements: Sequence[StageStatement], bill: dict[str, Any] | None
) -> list[str]:
    from components.provenance.agreement import disagreements

    return disagreements(lock_stages(root, release.commit), statements, release, bill) if statements else []


def _of_package(release: Release) -> list[str]:
    from components.provenance.agreement import BESIDE

    return sorted(set(release.files) - set(BESIDE))


def _sums(folder: Path) -> dict[str, str]:
    """``SHA256SUMS`` as ``sha256sum`` writes it."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {path.relative_to(folder).as_posix(): file_digest(path) for path in found}
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in digests.items()), encoding="utf-8")
    return digests


def _require_free(place: Path) -> None:
    """Only older evidence is replaced."""
    ours = (place / SUMS).is_file() and (place / README).is_file()
    if place.exists() and not ours and not (place.is_dir() and not any(place.iterdir())):
        raise SettingsError(f"{place} holds something else than evidence", "Name another folder with --out.")


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    text = files("flows.auditing").joinpath("evidence.md.j2").read_text(encoding="utf-8")
    # Markdown with shell commands in it, so that nothing is escaped and `${#name}` begins no comment.
    environment = Environment(
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
        comment_start_string="<#",
        comment_end_string="#>",
    )
    return environment.from_string(text)
