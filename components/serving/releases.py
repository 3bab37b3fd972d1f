"""Releases: packages in the store, each with its verdict and a signed attestation, under a version of a name.

``packages/<id>/``
    The files of a package, once for all versions that hold the same; the id is the SHA-256 of ``package.json``.
``releases/<name>/v<N>/gate-<SHA-256>.json``
    The verdict that let it pass; of two that race for a version, neither can harm the other's.
``releases/<name>/v<N>/provenance-<SHA-256>.intoto.jsonl``, ``bom-<SHA-256>.cdx.json``
    The signed statements of all stages, and the bill of materials.
``releases/<name>/v<N>/attestation.dsse.json``
    Written last: a signed in-toto Statement whose subjects are all those files. A version is there when this is.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import DataError, IntegrityError, StorageError
from components.provenance.signing import PublicKey, SigningKey, sign, verified
from components.provenance.stage_statement import PAYLOAD_TYPE, STATEMENT
from components.serving.package_folder import ATTESTATION, BOM, BUNDLE, GATE, RECORD, PackageFolder
from components.storage.atomic import new_folder
from components.storage.contract import MissingObjectError, ObjectStore
from components.storage.digests import file_digest

PREDICATE = "urn:recstill:release:1"
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_HEX = re.compile(r"[0-9a-f]{64}")
# What belongs to a version and not to its package: each lies under its own digest.
_OWN = {GATE: "gate-{}.json", BUNDLE: "provenance-{}.intoto.jsonl", BOM: "bom-{}.cdx.json"}
_ATTESTATION_KEY = re.compile(r"releases/([A-Za-z0-9_-]+)/v([1-9]\d*)/" + re.escape(ATTESTATION))


@dataclass(frozen=True)
class Release:
    """A version of a name, as its attestation says.

    Attributes:
        name: Scenario.
        version: From 1.
        package: The package's id: SHA-256 of ``package.json``.
        files: SHA-256 by file name: the package's, ``gate.json``, and, since there are such,
            ``provenance.intoto.jsonl`` and ``bom.cdx.json``.
        sizes: Bytes by file name.
        commit: That holds the run's ``dvc.lock`` and parameters.
        created: When that commit was made, ISO 8601, UTC.
        lineage: Digests of the data set, the teacher and all between, from the package.
        gate: The verdict in short: ``passed``, ``kind``, ``challenger``, ``champion``, ``difference``.
        attestation: SHA-256 of the signed envelope.
        signed_by: Id of the key.
        dirty: Was one of its stages run while code was in no commit? None: not known.
        run_key: What identifies the run: the same data, parameters and code have the same. Empty: not known.
        who: Whoever registered it: ``name <mail>``. Empty: not known.
    """

    name: str
    version: int
    package: str
    files: Mapping[str, str]
    sizes: Mapping[str, int]
    commit: str
    created: str
    lineage: Mapping[str, str]
    gate: Mapping[str, Any]
    attestation: str
    signed_by: str
    dirty: bool | None = None
    run_key: str = ""
    who: str = ""

    def __str__(self) -> str:
        return f"{self.name}@v{self.version}"

    def key(self, file: str) -> str:
        """Where a file lies in the store."""
        if file in _OWN:
            return f"{_folder(self.name, self.version)}/{_OWN[file].format(self.files[file])}"
        return f"packages/{self.package}/{file}"


def publish(
    store: ObjectStore,
    package: Path,
    verdict: Mapping[str, Any],
    *,
    name: str,
    version: int,
    commit: str,
    created: str,
    key: SigningKey,
    beside: Mapping[str, bytes] | None = None,
    dirty: bool | None = None,
    run_key: str = "",
    who: str = "",
) -> Release:
    """Put a package into the store as a version. The same again changes nothing and gives the same release.

    Args:
        store: Where to.
        package: The folder that ``package`` wrote; it is checked first.
        verdict: The gate's record; the same one must always be given for a version.
        name: Scenario.
        version: From 1.
        commit: That holds the run's ``dvc.lock``.
        created: When that commit was made, ISO 8601.
        key: Signs.
        beside: Contents by file name of what lies beside the package: ``provenance.intoto.jsonl``, ``bom.cdx.json``.
        dirty: Was one of its stages run while code was in no commit? None: not known.
        run_key: What identifies the run.
        who: Whoever registers it.

    Raises:
        DataError: ``package`` is no package.
        IntegrityError: A file of it is damaged.
        StorageError: The version exists and is another one, or the store cannot be written.
    """
    folder = PackageFolder(package)
    contents = {file: package / file for file in (RECORD, *folder.record["files"])}
    digests = {file: file_digest(path) for file, path in contents.items()}
    sizes = {file: path.stat().st_size for file, path in contents.items()}
    gate = (json.dumps(verdict, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    own = {GATE: gate, **(beside or {})}
    for file, content in own.items():
        if file not in _OWN or file in contents:
            raise DataError(f"{file!r} cannot lie beside the package of {name}@v{version}")
        digests[file], sizes[file] = hashlib.sha256(content).hexdigest(), len(content)
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": file, "digest": {"sha256": digests[file]}} for file in sorted(digests)],
        "predicateType": PREDICATE,
        "predicate": {
            "name": name,
            "version": version,
            "package": digests[RECORD],
            "sizes": sizes,
            "commit": commit,
            "created": created,
            "lineage": folder.record.get("lineage", {}),
            "gate": {part: verdict.get(part) for part in ("passed", "kind", "challenger", "champion", "difference")},
            "dirty": dirty,
            "run": run_key,
            "who": who,
        },
    }
    envelope = sign(json.dumps(statement, sort_keys=True).encode(), PAYLOAD_TYPE, key)
    release = _release(statement, envelope, key.public.id)
    attested = attestation_key(name, version)
    if store.size(attested) is not None:
        _require_same(store, attested, envelope, f"{name}@v{version}")
        return release
    for file, path in sorted(contents.items()):
        store.put(release.key(file), path, digests[file])
    for file, content in own.items():
        store.put(release.key(file), content, digests[file])
    if not store.put_if_absent(attested, envelope, release.attestation):
        _require_same(store, attested, envelope, f"{name}@v{version}")
    return release


def read_release(store: ObjectStore, name: str, version: int, keys: Sequence[PublicKey]) -> Release:
    """A version by its attestation, whose signature is checked; the files are not read.

    Raises:
        MissingObjectError: There is no such version.
        IntegrityError: The attestation is damaged, of another version, or no trusted key has signed it.
        StorageError: The store cannot be read.
    """
    try:
        envelope = store.get(attestation_key(name, version))
    except MissingObjectError:
        known = ", ".join(f"v{one}" for one in versions(store, name)) or "none"
        raise MissingObjectError(
            f"{store.address} has no release {name}@v{version}; of {name} there is: {known}"
        ) from None
    what = f"{name}@v{version}"
    payload, signer = verified(envelope, PAYLOAD_TYPE, keys, what)
    try:
        statement = json.loads(payload)
        release = _release(statement, envelope, signer)
        right_kind = statement["_type"] == STATEMENT and statement["predicateType"] == PREDICATE
    except (ValueError, KeyError, TypeError, AttributeError):
        raise IntegrityError(
            f"the attestation of {what} is signed, but not of the form that this version reads"
        ) from None
    if not right_kind or (release.name, release.version) != (name, version):
        raise IntegrityError(f"the attestation of {what} is that of {release}: somebody has put it in its place")
    names_plain = all(Path(file).name == file and file not in ("", ".", "..") for file in release.files)
    digests_plain = all(_HEX.fullmatch(digest) for digest in (*release.files.values(), release.package))
    if not names_plain or not digests_plain or release.files.get(RECORD) != release.package:
        raise IntegrityError(f"the attestation of {what} does not list a package")
    return release


def fetch_release(store: ObjectStore, release: Release, folder: Path) -> Path:
    """The files of a release on this disk, each checked against the attestation.

    Args:
        store: Where they lie.
        release: As :func:`read_release` gave it.
        folder: Its place is a folder below, named by the attestation; one that is there and whole is used again.

    Returns:
        The package's folder.

    Raises:
        MissingObjectError: A file is not in the store.
        IntegrityError: A file is damaged.
        StorageError: The store cannot be read or the disk not written.
    """
    place = folder / release.attestation
    if place.is_dir() and all((place / file).is_file() for file in release.files) and _whole(place, release):
        return place
    with new_folder(place) as temporary:
        for file, digest in release.files.items():
            store.get_to_file(release.key(file), temporary / file, digest)
    return place


def verify_release(store: ObjectStore, release: Release) -> list[str]:
    """Read every file of a release again; a line for each that is missing or not as attested.

    Raises:
        StorageError: The store cannot be read.
    """
    problems = []
    with tempfile.TemporaryDirectory(prefix="recstill-") as scratch:
        for file, digest in sorted(release.files.items()):
            path = Path(scratch) / "file"
            try:
                store.get_to_file(release.key(file), path, digest)
            except (MissingObjectError, IntegrityError) as error:
                problems.append(f"{release} {file}: {error.message}")
            path.unlink(missing_ok=True)
    return problems


def versions(store: ObjectStore, name: str) -> list[int]:
    """The versions of a name, ascending; those that were never finished are none."""
    return sorted(version for _, version in _attested(store, f"releases/{_checked(name)}/"))


def names(store: ObjectStore) -> list[str]:
    """All names that have a version."""
    return sorted({name for name, _ in _attested(store, "releases/")})


def attestation_key(name: str, version: int) -> str:
    """Where the attestation of a version lies."""
    return f"{_folder(name, version)}/{ATTESTATION}"


def _attested(store: ObjectStore, prefix: str) -> Iterator[tuple[str, int]]:
    for entry in store.list(prefix):
        if found := _ATTESTATION_KEY.fullmatch(entry.key):
            yield found[1], int(found[2])


def _folder(name: str, version: int) -> str:
    if version < 1:
        raise DataError(f"{name}@v{version} is no version", "Versions are counted from 1.")
    return f"releases/{_checked(name)}/v{version}"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise DataError(f"{name[:100]!r} is no name of a model", "Use letters, digits, '_' and '-'.")
    return name


def _release(statement: Mapping[str, Any], envelope: bytes, signer: str) -> Release:
    predicate = statement["predicate"]
    return Release(
        name=str(predicate["name"]),
        version=int(predicate["version"]),
        package=str(predicate["package"]),
        files={str(one["name"]): str(one["digest"]["sha256"]) for one in statement["subject"]},
        sizes={str(file): int(size) for file, size in predicate["sizes"].items()},
        commit=str(predicate["commit"]),
        created=str(predicate["created"]),
        lineage=dict(predicate["lineage"]),
        gate=dict(predicate["gate"]),
        attestation=hashlib.sha256(envelope).hexdigest(),
        signed_by=signer,
        dirty=predicate.get("dirty"),
        run_key=str(predicate.get("run") or ""),
        who=str(predicate.get("who") or ""),
    )


def _require_same(store: ObjectStore, key: str, envelope: bytes, what: str) -> None:
    if store.get(key) != envelope:
        raise StorageError(f"{what} exists already in {store.address}, and is another one", "Register a new version.")


def _whole(place: Path, release: Release) -> bool:
    return all(file_digest(place / file) == digest for file, digest in release.files.items())
