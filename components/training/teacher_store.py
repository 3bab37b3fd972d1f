"""Teachers in the object store, for later ones to start from: ``teachers/<teacher digest>/``.

Beside the teacher's own files there is ``items.json``, the source's item ids in the order of the rows, and
``manifest.json``, written last, with the digest of every file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from components.errors import DataError, IntegrityError
from components.storage.atomic import new_folder, read_json
from components.storage.contract import MissingObjectError, ObjectStore
from components.storage.digests import file_digest

ITEMS_FILE = "items.json"
_MANIFEST = "manifest.json"
_FORMAT = 1


def has_teacher(store: ObjectStore, digest: str) -> bool:
    """Whether a teacher is in the store, whole.

    Raises:
        StorageError: The store cannot be read.
    """
    return store.size(_key(digest, _MANIFEST)) is not None


def put_teacher(store: ObjectStore, teacher: Path, items: Sequence[str]) -> str:
    """Keep a teacher, unless it is there.

    Args:
        store: Where.
        teacher: Its folder, as ``train_teacher`` wrote it.
        items: ``(K,)`` the source's item ids in the order of its rows.

    Returns:
        Its digest.

    Raises:
        DataError: It is no teacher.
        StorageError: The store cannot be written.
    """
    digest = str(read_json(teacher / "teacher.json").get("digest", ""))
    if len(digest) != 64:
        raise DataError(f"{teacher} is no teacher: its record has no digest", "Run the stage `train_teacher` again.")
    if has_teacher(store, digest):
        return digest
    files = {}
    for path in sorted(path for path in teacher.rglob("*") if path.is_file()):
        name = path.relative_to(teacher).as_posix()
        files[name] = file_digest(path)
        store.put(_key(digest, name), path, files[name])
    for name, content in (
        (ITEMS_FILE, _json(list(items))),
        (_MANIFEST, _json({"format": _FORMAT, "files": {**files, ITEMS_FILE: _sha256(_json(list(items)))}})),
    ):
        store.put(_key(digest, name), content, _sha256(content))
    return digest


def fetch_teacher(store: ObjectStore, digest: str, folder: Path) -> Path:
    """Bring a teacher back, every byte checked against its manifest.

    Args:
        store: Where it is.
        digest: Of the teacher.
        folder: What its folder is to be called; it appears whole or not at all.

    Raises:
        DataError: The store has no such teacher.
        IntegrityError: It is damaged.
        StorageError: The store cannot be read.
    """
    try:
        files = json.loads(store.get(_key(digest, _MANIFEST)))["files"]
        names = {str(name): str(sha256) for name, sha256 in files.items()}
    except MissingObjectError:
        raise DataError(
            f"there is no teacher {digest[:12]} in {store.address}",
            "Take teacher.warm_start out of params.yaml, or set RECSTILL_STORE to the store that has it.",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise IntegrityError(f"the manifest of teacher {digest[:12]} in {store.address} is damaged") from None
    with new_folder(folder) as temporary:
        for name, sha256 in names.items():
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise IntegrityError(f"the manifest of teacher {digest[:12]} names {name!r}, which is no file of it")
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            store.get_to_file(_key(digest, name), temporary / name, sha256)
    return folder


def _key(digest: str, name: str) -> str:
    return f"teachers/{digest}/{name}"


def _json(record: object) -> bytes:
    return (json.dumps(record, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n").encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
