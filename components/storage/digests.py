"""SHA-256 of files, folders, arrays and records: how every artifact is identified."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

_CHUNK = 1 << 20


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 over the sorted relative names and file digests of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return record_digest({path.relative_to(folder).as_posix(): file_digest(path) for path in files})


def record_digest(record: Any) -> str:
    """SHA-256 of a JSON-able record in canonical form (sorted keys, no white space)."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def array_digest(array: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and values (little endian, C order)."""
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    digest = hashlib.sha256(f"{little.dtype.str}{little.shape}".encode())
    digest.update(little.tobytes())
    return digest.hexdigest()
