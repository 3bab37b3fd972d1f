"""What a stage's outputs are and tell of themselves: every file hashed once, and the digests that name them as a whole.

Nothing here loads a network: this runs at the end of every run, and has to take no time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from components.provenance.stage_run import FileDigests, plain
from components.storage.digests import record_digest

_CHUNK = 1 << 20
_LARGEST_RECORD = 16 << 20
_LARGEST_METRICS = 1 << 16
_MOST_PARTS = 1000
_COUNTS = ("events", "users", "items", "rows", "points", "density", "first_event", "last_event", "as_of")


class Told(NamedTuple):
    """What outputs tell.

    Attributes:
        digests: Of what they are as a whole, by kind: ``dataset``, ``teacher``, ``student`` and so on.
        metrics: Their figures.
        byproducts: SHA-256 by object key of the soft labels' parts, which lie in the store.
    """

    digests: dict[str, str]
    metrics: dict[str, Any]
    byproducts: dict[str, str]


def file_digests(path: Path) -> FileDigests:
    """SHA-256 and MD5 of a file in one read.

    Raises:
        OSError: It cannot be read.
    """
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
            size += len(chunk)
    return FileDigests(sha256.hexdigest(), md5.hexdigest(), size)


def told_by(root: Path, files: Mapping[str, FileDigests]) -> Told:
    """What the outputs of a stage tell of themselves. What cannot be read tells nothing: its digests still stand.

    Args:
        root: The checkout.
        files: Every file of every output, by path from the checkout's root.
    """
    told = Told({}, {}, {})
    for path, one in sorted(files.items()):
        reader = _READERS.get(Path(path).name)
        try:
            if reader is not None:
                reader(told, root, path, files)
            elif Path(path).parent.name == "metrics" and path.endswith(".json") and one.bytes <= _LARGEST_METRICS:
                told.metrics.update(plain(_record(root, path, files)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return told


def _record(root: Path, path: str, files: Mapping[str, FileDigests]) -> Any:
    if files[path].bytes > _LARGEST_RECORD:
        raise ValueError
    return json.loads((root / path).read_bytes())


def _source(told: Told, root: Path, path: str, files: Mapping[str, FileDigests]) -> None:
    record = _record(root, path, files)
    told.digests["source"] = str(record["digest"])
    told.metrics.update({name: plain(record[name]) for name in _COUNTS if record.get(name) is not None})


def _dataset(told: Told, root: Path, path: str, files: Mapping[str, FileDigests]) -> None:
    record = _record(root, path, files)
    told.digests["dataset"] = str(record["digest"])
    told.metrics.update({name: plain(record[name]) for name in _COUNTS if record.get(name) is not None})


def _network(told: Told, root: Path, path: str, files: Mapping[str, FileDigests]) -> None:
    folder = Path(path).parent
    if f"{folder.parent}/teacher.json" not in files:  # else it is a member
        told.digests[folder.name] = _checkpoint(root, str(folder), files)


def _teacher(told: Told, root: Path, path: str, files: Mapping[str, FileDigests]) -> None:
    record = _record(root, path, files)
    folders = [f"{Path(path).parent}/member-{number}" for number in range(int(record["members"]))]
    # As ``components.networks.ensemble.teacher_digest`` computes it from the files.
    told.digests["teacher"] = record_digest([_checkpoint(root, folder, files) for folder in folders])


def _soft_labels(told: Told, root: Path, path: str, files: Mapping[str, FileDigests]) -> None:
    record = _record(root, path, files)
    told.digests["soft_labels"] = str(record["id"])
    if len(record["parts"]) <= _MOST_PARTS:  # of more, the manifest among the subjects tells
        prefix = f"soft-labels/{record['id']}"
        told.byproducts.update({f"{prefix}/{part['name']}": str(part["sha256"]) for part in record["parts"]})


def _variants(told: Told, root: Path, path: str, files: Mapping[str, FileDigests]) -> None:
    told.digests["variants"] = files[path].sha256


def _package(told: Told, root: Path, path: str, files: Mapping[str, FileDigests]) -> None:
    if f"{Path(path).parents[1]}/package.json" in files:  # else it is a part of another
        return
    record = _record(root, path, files)
    told.digests["package"] = files[path].sha256
    told.metrics.update({"chosen": str(record["choice"]["chosen"]), **plain(record["metrics"])})


def _choice(told: Told, root: Path, path: str, files: Mapping[str, FileDigests]) -> None:
    record = _record(root, path, files)
    told.metrics.update({"chosen": str(record["chosen"]), **plain(record["figures"])})


def _checkpoint(root: Path, folder: str, files: Mapping[str, FileDigests]) -> str:
    """As ``components.storage.checkpoints.checkpoint_digest`` computes it from the files, without importing torch."""
    architecture = _record(root, f"{folder}/architecture.json", files)
    weights = files[f"{folder}/weights.safetensors"].sha256
    return record_digest({"architecture": record_digest(architecture), "weights": weights})


_READERS = {
    "source.json": _source,
    "dataset.json": _dataset,
    "architecture.json": _network,
    "teacher.json": _teacher,
    "manifest.json": _soft_labels,
    "variants.json": _variants,
    "package.json": _package,
    "choice.json": _choice,
}
