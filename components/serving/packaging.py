"""Writing a package: the chosen model with everything that is needed to serve it, and where it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from components.errors import IntegrityError
from components.evaluation.onnx_session import new_session
from components.evaluation.selection import LINEAGE_BYTES
from components.provenance.model_card import model_card
from components.serving.golden import golden_record
from components.serving.package_folder import CARD, FORMAT, GOLDEN, INDEX, MODEL, RECORD, SIGNATURE
from components.serving.predictor import Predictor
from components.storage.atomic import write_json
from components.storage.digests import file_digest
from components.tasks.contract import Task

GOLDEN_REQUESTS = 16


@dataclass(frozen=True)
class PackageContent:
    """What goes into a package.

    Attributes:
        name: Of the scenario.
        model: The chosen ONNX file.
        choice: ``choice.json``.
        metrics: ``metrics.json`` of the report.
        source: ``source.json``.
        lineage: Digests, the commit and the version, all text; they go into the model's metadata too.
        dirty: Was code or a parameter changed since that commit? None: unknown.
        params: The scenario in params.yaml.
        requests: The golden requests; None: the task's own.
    """

    name: str
    model: Path
    choice: Mapping[str, Any]
    metrics: Mapping[str, Any]
    source: Mapping[str, Any]
    lineage: Mapping[str, str]
    dirty: bool | None
    params: Mapping[str, Any]
    requests: Sequence[Mapping[str, Any]] | None = None


def write_package(folder: Path, content: PackageContent, task: Task) -> None:
    """Write a package into ``folder``, which must exist, and answer its golden requests once.

    Raises:
        IntegrityError: The chosen model is not the one that was evaluated, or the package does not answer.
    """
    if file_digest(content.model) != content.choice["sha256"]:
        raise IntegrityError(
            f"{content.model} is not the file that the report chose", "Run `quantize` and later stages again."
        )
    (folder / MODEL).write_bytes(_with_lineage(content))
    index = content.choice["variant"].get("index")
    if index:
        (folder / INDEX).write_bytes(_index(content, index))
    described = task.write_package_files(folder)
    signature = _signature(folder / MODEL, task.name)
    if index:
        meaning = {one["name"]: described["meaning"][one["name"]] for one in signature["inputs"]}
        (output,) = signature["outputs"]
        meaning[output["name"]] = f"its inner products with the items' vectors, which are in {INDEX}, are their scores"
        described["meaning"] = meaning
    write_json(folder / SIGNATURE, {**signature, **described, "max_length": task.max_length})
    write_json(folder / GOLDEN, {"tolerance": 0.0, "requests": []})
    record = _record(folder, content, task)
    (folder / CARD).write_text(model_card(record, content.source), encoding="utf-8")
    _seal(folder, record)
    # The answers are the package's own: loaded, verified and asked as a user would.
    write_json(folder / GOLDEN, _golden(Predictor(folder), content, task))
    _seal(folder, record)
    Predictor(folder).replay_golden()


def _with_lineage(content: PackageContent) -> bytes:
    model = onnx.load(content.model)
    known = {entry.key: entry.value for entry in model.metadata_props}
    lineage = {f"recstill.{name}": value for name, value in content.lineage.items()}
    onnx.helper.set_model_props(model, dict(sorted((known | lineage).items())))
    written = bytes(model.SerializeToString(deterministic=True))
    if len(written) > content.model.stat().st_size + LINEAGE_BYTES:
        raise IntegrityError(f"the lineage takes more than the {LINEAGE_BYTES} bytes that the budget allows for it")
    return written


def _index(content: PackageContent, record: Mapping[str, Any]) -> bytes:
    path = content.model.with_name(record["file"])
    found = path.read_bytes()
    if hashlib.sha256(found).hexdigest() != record["sha256"]:
        raise IntegrityError(f"{path} is not the file that the report chose", "Run `quantize` and later stages again.")
    return found


def _signature(model: Path, task: str) -> dict[str, Any]:
    session = new_session(model)

    def described(values: Any) -> list[dict[str, Any]]:
        return [{"name": value.name, "type": value.type, "shape": list(value.shape)} for value in values]

    return {
        "task": task,
        "inputs": described(session.get_inputs()),
        "outputs": described(session.get_outputs()),
    }


def _golden(predictor: Predictor, content: PackageContent, task: Task) -> dict[str, Any]:
    requests = task.golden_requests(GOLDEN_REQUESTS) if content.requests is None else content.requests
    integers = int(content.choice["variant"].get("activation_bits", 32)) < 32
    return golden_record(predictor, requests, integers)


def _record(folder: Path, content: PackageContent, task: Task) -> dict[str, Any]:
    teacher = content.metrics["contenders"]["teacher"]
    return {
        "format": FORMAT,
        "name": content.name,
        "task": task.name,
        "recstill": content.lineage["version"],
        "items": task.outcomes,
        "model_bytes": sum((folder / name).stat().st_size for name in (MODEL, INDEX) if (folder / name).is_file()),
        "choice": {key: content.choice[key] for key in ("chosen", "reason", "made_from", "variant")},
        "lineage": dict(content.lineage),
        "dirty": content.dirty,
        "params": content.params,
        "metrics": content.choice["figures"],
        "teacher": {
            key: teacher[key]
            for key in (*(measure.key for measure in task.measures), "bytes", "p50_ms", "parameters")
            if key in teacher
        },
        "test": {"targets": content.metrics["test_targets"], "users": content.metrics["test_users"]},
        "measures": [measure._asdict() for measure in task.measures],
        "wording": task.wording()._asdict(),
    }


def _seal(folder: Path, record: dict[str, Any]) -> None:
    """Write ``package.json`` with the digest of every other file."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in sorted(folder.iterdir())
        if path.name != RECORD
    }
    write_json(folder / RECORD, {**record, "files": files})
