"""One run of one stage as a record: what ``dvc.lock`` says of it, and what was found out beside that."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from components.storage.digests import record_digest

FOLDER = ".dir"
"""What DVC puts behind the MD5 of a folder's listing."""

Attached = Literal["during the run", "afterwards"]


@dataclass(frozen=True)
class FileDigests:
    """A file by its content.

    Attributes:
        sha256: 64 hexadecimal digits.
        md5: 32 hexadecimal digits: DVC's name of it.
        bytes: Its size.
    """

    sha256: str
    md5: str
    bytes: int


@dataclass(frozen=True)
class StageStatement:
    """One run of one stage.

    Attributes:
        scenario: Whose stage.
        stage: Its name without the scenario, such as ``distill``.
        entry: :func:`entry_id` of what the lock records of it.
        subjects: Every file of every output by its path from the checkout's root; folders are spread out.
        outputs: MD5 by output path, as the lock names it: of a folder with ``.dir`` behind.
        inputs: MD5 (``.dir`` behind that of a folder) by path of what it read that is no code. What DVC knows by
            another mark than MD5, such as a file on S3, has that mark: ``etag:...``.
        code: MD5 by path of the modules that it ran.
        params: The parameters that it read, by their key in params.yaml.
        cmd: Its command.
        commit: That was checked out, ``unknown`` outside of git.
        dirty: Was code in no commit then? None: unknown. Parameters do not count, since they are recorded here.
        who: Whoever ran it, or attached this afterwards: ``name <mail>``.
        started: When the stage began, ISO 8601, UTC; empty when nobody noted it.
        finished: When it ended.
        attached: ``during the run``: by the run that made the outputs. ``afterwards``: from the lock and the bytes.
        digests: What the outputs are as a whole, by kind: ``source``, ``dataset``, ``teacher``, ``student``,
            ``pruned``, ``baseline``, ``soft_labels`` (the cache's id), ``variants``, ``package``.
        metrics: What the outputs tell of themselves in figures.
        input_sha256: SHA-256 by input path: of a file, or the ``dirHash`` of a folder (:func:`folder_hash`).
        requirements: SHA-256 of ``requirements.lock``; empty when there is none.
        environment: Versions of the interpreter and of the libraries that decide over a result; empty: not known.
        byproducts: SHA-256 by object key of what it put into the store.
        signed_by: Id of the key; empty while it is not signed.
        envelope: The signed envelope, as it lies in the store or in a bundle.
    """

    scenario: str
    stage: str
    entry: str
    subjects: Mapping[str, FileDigests]
    outputs: Mapping[str, str]
    inputs: Mapping[str, str]
    code: Mapping[str, str]
    params: Mapping[str, Any]
    cmd: str
    commit: str
    dirty: bool | None
    who: str
    started: str = ""
    finished: str = ""
    attached: Attached = "afterwards"
    digests: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    input_sha256: Mapping[str, str] = field(default_factory=dict)
    requirements: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    byproducts: Mapping[str, str] = field(default_factory=dict)
    signed_by: str = ""
    envelope: bytes = field(default=b"", repr=False)

    @property
    def address(self) -> str:
        """DVC's name of the stage, such as ``distill@movielens``."""
        return f"{self.stage}@{self.scenario}"


def entry_id(lock_entry: Mapping[str, Any]) -> str:
    """SHA-256 over what a ``dvc.lock`` records of a stage: ``cmd``, ``deps``, ``params`` and ``outs``, as parsed."""
    return record_digest(plain({part: lock_entry.get(part) for part in ("cmd", "deps", "params", "outs")}))


def is_code(path: str) -> bool:
    """Whether a dependency of a stage is a module that it runs, and not something that it reads."""
    return path.endswith(".py") and not path.startswith("artifacts/")


def dependency_mark(dependency: Mapping[str, Any]) -> str:
    """What a lock knows a dependency by: its MD5, or ``etag:...`` and the like of one that lies elsewhere."""
    if "md5" in dependency:
        return str(dependency["md5"])
    return next((f"{kind}:{dependency[kind]}" for kind in ("etag", "checksum") if dependency.get(kind)), "")


def of_lock_entry(address: str, lock_entry: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a :class:`StageStatement` that a lock's entry gives.

    Args:
        address: ``stage@scenario``.
        lock_entry: What the lock has under that address.
    """
    stage, _, scenario = address.partition("@")
    marks = {str(one["path"]): dependency_mark(one) for one in lock_entry.get("deps") or ()}
    return {
        "scenario": scenario,
        "stage": stage,
        "entry": entry_id(lock_entry),
        "cmd": str(lock_entry.get("cmd") or ""),
        "outputs": {str(one["path"]): dependency_mark(one) for one in lock_entry.get("outs") or ()},
        "inputs": {path: mark for path, mark in marks.items() if not is_code(path)},
        "code": {path: mark for path, mark in marks.items() if is_code(path)},
        "params": {key: value for one in (lock_entry.get("params") or {}).values() for key, value in one.items()},
    }


def folder_hash(files: Mapping[str, str]) -> str:
    """``dirHash`` of in-toto's DigestSet (Go's directory Hash1): what ``sha256sum`` prints of a folder's files, hashed.

    Args:
        files: SHA-256 by name below the folder. On the command line:
            ``find . -type f | sed 's,^[.]/,,' | LC_ALL=C sort | xargs sha256sum | sha256sum``.
    """
    lines = "".join(f"{files[name]}  {name}\n" for name in sorted(files, key=str.encode))
    return hashlib.sha256(lines.encode()).hexdigest()


def listing(files: Mapping[str, str]) -> bytes:
    """A folder's listing as DVC writes it: its MD5 is what names the folder.

    Args:
        files: MD5 by name below the folder.
    """
    rows = sorted(({"md5": md5, "relpath": name} for name, md5 in files.items()), key=lambda row: row["relpath"])
    return json.dumps(rows, sort_keys=True).encode()


def listing_md5(content: bytes) -> str:
    """What DVC names a folder by: the MD5 of its listing, and ``.dir``."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest() + FOLDER


def plain(value: Any) -> Any:
    """A value of YAML as one of JSON: dates and what JSON has no number for become text."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
