"""Writing a package of two packages, which are in it byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.serving.golden import golden_record
from components.serving.package_folder import FORMAT, GOLDEN, RECORD, PackageFolder
from components.serving.two_stage import RANKING, RETRIEVAL, TwoStagePredictor
from components.storage.atomic import write_json
from components.storage.digests import file_digest

_INTEGER_BITS = 32


@dataclass(frozen=True)
class Bound:
    """What goes into a package of two.

    Attributes:
        name: Of the whole.
        parts: The packages, by :data:`RETRIEVAL` and :data:`RANKING`.
        candidates: Outcomes that are ranked.
        weight: Of the log-odds beside the retrieval's score.
        requests: Golden requests, as clients send them.
        figures: What it is worth.
        lineage: Digests, the commit and the version, all text; the parts' own are in the parts.
        dirty: Was code or a parameter changed since that commit? None: unknown.
        params: The entry in params.yaml.
    """

    name: str
    parts: Mapping[str, Path]
    candidates: int
    weight: float
    requests: Sequence[Mapping[str, Any]]
    figures: Mapping[str, Any]
    lineage: Mapping[str, str]
    dirty: bool | None
    params: Mapping[str, Any]


def write_bound(folder: Path, bound: Bound) -> None:
    """Write a package of two into ``folder``, which must exist, and answer its golden requests once.

    Raises:
        DataError: A part is no package.
        IntegrityError: A part is damaged, cannot take its part, or the whole does not answer.
    """
    parts = {name: PackageFolder(path) for name, path in bound.parts.items()}
    for name, part in parts.items():
        (folder / name).mkdir()
        # The bytes that were verified, and not what may lie there a moment later.
        for file in part.record["files"]:
            (folder / name / file).write_bytes(part.read(file))
        (folder / name / RECORD).write_bytes((part.folder / RECORD).read_bytes())
    record = _record(bound, parts)
    write_json(folder / GOLDEN, {"tolerance": 0.0, "requests": []})
    _seal(folder, record)
    integers = any(_activation_bits(part) < _INTEGER_BITS for part in parts.values())
    write_json(folder / GOLDEN, golden_record(TwoStagePredictor(folder), bound.requests, integers))
    _seal(folder, record)
    TwoStagePredictor(folder).replay_golden()


def _record(bound: Bound, parts: Mapping[str, PackageFolder]) -> dict[str, Any]:
    retrieval, ranking = parts[RETRIEVAL].record, parts[RANKING].record
    bits = min(_activation_bits(part) for part in parts.values())
    return {
        "format": FORMAT,
        "name": bound.name,
        "task": retrieval["task"],
        "recstill": bound.lineage["version"],
        "items": retrieval["items"],
        "model_bytes": retrieval["model_bytes"] + ranking["model_bytes"],
        "choice": {
            "chosen": f"{retrieval['choice']['chosen']} and {ranking['choice']['chosen']}",
            "reason": "what each scenario ships",
            "variant": {"activation_bits": bits},
        },
        "parts": {
            name: {
                "package": hashlib.sha256((part.folder / RECORD).read_bytes()).hexdigest(),
                "name": part.record["name"],
            }
            for name, part in parts.items()
        },
        "two_stage": {"candidates": bound.candidates, "weight": bound.weight},
        "lineage": dict(bound.lineage),
        "dirty": bound.dirty,
        "params": dict(bound.params),
        "metrics": dict(bound.figures),
    }


def _activation_bits(part: PackageFolder) -> int:
    return int(part.record["choice"]["variant"].get("activation_bits", _INTEGER_BITS))


def _seal(folder: Path, record: Mapping[str, Any]) -> None:
    golden = folder / GOLDEN
    files = {GOLDEN: {"bytes": golden.stat().st_size, "sha256": file_digest(golden)}}
    write_json(folder / RECORD, {**record, "files": files})
