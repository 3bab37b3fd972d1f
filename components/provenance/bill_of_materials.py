"""The bill of materials of a version: a CycloneDX 1.6 ML-BOM, https://cyclonedx.org/docs/1.6/json/.

The model with its card, its ancestors (pruned from the student, distilled from the teacher) with the SHA-256 of every
file, the data it was learned from, and the pinned libraries that made it. CycloneDX's library has no ``modelCard``, so
the document is written here as JSON; it is validated strictly against the schema before anybody gets it.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from components.errors import IntegrityError
from components.provenance.stage_run import StageStatement, plain
from components.storage.digests import record_digest

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;#]+)")
_SERIAL = uuid.UUID("9b7a3d6e-6d1d-5e3f-9d40-2c1a4f0c7b11")
# Packages made before they said so themselves rank a catalogue.
_MEASURES = [
    {"key": "ndcg10", "title": "NDCG@10"},
    {"key": "recall10", "title": "Recall@10"},
    {"key": "mrr", "title": "MRR"},
]
_WORDING = {"users": "users", "tested": "full ranking"}
# How the shipped model is derived: from the last one back.
_LINE = ("pruned", "student", "teacher")
_MADE = {
    "pruned": "the student without whole channels, heads or widths, fine-tuned",
    "student": "distilled from the teacher's soft labels",
    "teacher": "trained on the data set",
}


@dataclass(frozen=True)
class Materials:
    """What a bill is made of.

    Attributes:
        name: Scenario.
        version: Of the release.
        commit: That holds the run's ``dvc.lock``.
        created: When that commit was made, ISO 8601.
        package: The package's id.
        files: SHA-256 by name of the package's files, ``package.json`` among them.
        record: ``package.json``.
        signature: ``signature.json``.
        source: ``source.json``; empty when it is not at hand.
        statements: Of the run's stages; they know the files of networks and data.
        bundle: SHA-256 of ``provenance.intoto.jsonl``.
        requirements: The text of ``requirements.lock``; empty when there is none.
    """

    name: str
    version: int
    commit: str
    created: str
    package: str
    files: Mapping[str, str]
    record: Mapping[str, Any]
    signature: Mapping[str, Any]
    source: Mapping[str, Any]
    statements: Sequence[StageStatement]
    bundle: str
    requirements: str


def bill_of_materials(materials: Materials) -> bytes:
    """The bill as JSON; the same materials give the same bytes, serial number and all.

    Raises:
        IntegrityError: It would not be valid.
    """
    model, data = _model(materials), _data(materials)
    libraries = [_library(name, version) for name, version in _PIN.findall(materials.requirements)]
    of_data = [one["bom-ref"] for one in data]
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": materials.created,
            "tools": {
                "components": [
                    {"type": "application", "name": "recstill", "version": str(materials.record.get("recstill", ""))}
                ]
            },
            "component": model,
            "properties": _properties(commit=materials.commit, package=materials.package),
        },
        "components": [*data, *libraries],
        "dependencies": [
            {"ref": model["bom-ref"], "dependsOn": [*of_data, *(one["bom-ref"] for one in libraries)]},
            *({"ref": ref, "dependsOn": of_data[number + 1 : number + 2]} for number, ref in enumerate(of_data)),
        ],
    }
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(_SERIAL, record_digest(document))}"
    content = (json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    if problems := bill_problems(content):
        raise IntegrityError(f"the bill of materials of {materials.name}@v{materials.version}: {problems[0]}")
    return content


def bill_problems(content: bytes) -> list[str]:
    """Where a bill is not one of CycloneDX 1.6, strictly; none when all is well."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    try:
        text = content.decode()
        declared = json.loads(text).get("specVersion")
    except (ValueError, AttributeError):
        return ["it is no JSON object"]
    if declared != "1.6":
        return [f"it is of CycloneDX {declared!r}, not 1.6"]
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return [] if error is None else [f"not valid by the schema of CycloneDX 1.6: {' '.join(str(error).split())[:300]}"]


def _model(materials: Materials) -> dict[str, Any]:
    record = materials.record
    choice = record["choice"]
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{materials.package}",
        "name": materials.name,
        "version": str(materials.version),
        "description": f"{choice['chosen']}: {choice['reason']}",
        "hashes": [_sha256(materials.files["model.onnx"])],
        "components": [_file(name, sha256, "package") for name, sha256 in sorted(materials.files.items())],
        "pedigree": {"ancestors": _ancestors(materials, _line(str(choice["made_from"])))},
        "externalReferences": [
            {
                "type": "attestation",
                "url": "provenance.intoto.jsonl",
                "hashes": [_sha256(materials.bundle)],
                "comment": "in-toto bundle: a signed SLSA provenance statement of every stage",
            }
        ],
        "modelCard": _card(materials),
        "properties": _properties(package=materials.package, variant=record["lineage"].get("variant")),
    }


def _line(made_from: str) -> tuple[str, ...]:
    """What the shipped model descends from, nearest first."""
    return _LINE[_LINE.index(made_from) :] if made_from in _LINE else _LINE[-1:]


def _ancestors(materials: Materials, line: Sequence[str]) -> list[dict[str, Any]]:
    """The nearest ancestor, which holds the next one as its own."""
    digest = materials.record["lineage"].get(line[0]) if line else None
    if digest is None:
        return []
    one: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"{line[0]}:{digest}",
        "name": f"{materials.name}-{line[0]}",
        "version": str(digest)[:12],
        "description": _MADE[line[0]],
        "properties": _properties(digest=digest),
    }
    if files := _files(materials, line[0], str(digest)):
        one["components"] = files
    if older := _ancestors(materials, line[1:]):
        one["pedigree"] = {"ancestors": older}
    return [one]


def _files(materials: Materials, kind: str, digest: str) -> list[dict[str, Any]]:
    """The files of an artifact by the statement that knows its digest; none when no statement does."""
    statement = next((one for one in materials.statements if one.digests.get(kind) == digest), None)
    if statement is None:
        return []
    folders = [path for path, md5 in statement.outputs.items() if md5.endswith(".dir")]
    kept = {path: one for path, one in statement.subjects.items() if any(path.startswith(f"{f}/") for f in folders)}
    return [_file(path, one.sha256, kind) for path, one in sorted((kept or statement.subjects).items())]


def _data(materials: Materials) -> list[dict[str, Any]]:
    """The soft labels, the data set, and its source: each after what is made of it."""
    about = materials.source.get("about") or {}
    title = str(about.get("title") or materials.source.get("kind") or "the scenario's source")
    names = {
        "soft_labels": f"{materials.name} soft labels",
        "dataset": f"{materials.name} data set",
        "source": title,
    }
    found = []
    for kind, name in names.items():
        digest = materials.record["lineage"].get(kind)
        if digest is None:
            continue
        counts = (
            {key: materials.source.get(key) for key in ("events", "users", "items")} if kind != "soft_labels" else {}
        )
        one: dict[str, Any] = {
            "type": "data",
            "bom-ref": f"{kind}:{digest}",
            "name": name,
            "version": str(digest)[:12],
            "data": [{"type": "dataset", "name": name}],
            "properties": _properties(digest=digest, **counts),
        }
        if files := _files(materials, kind, str(digest)):
            one["components"] = files
        if kind == "source" and about.get("licence"):
            one["licenses"] = [{"license": {"name": str(about["licence"])}}]
        found.append(one)
    return found


def _card(materials: Materials) -> dict[str, Any]:
    record = materials.record
    figures, test = record["metrics"], record["test"]
    measures, wording = record.get("measures") or _MEASURES, record.get("wording") or _WORDING
    slice_ = f"{test['targets']} held-out points of {test['users']} {wording['users']}, {wording['tested']}"
    measured: list[dict[str, Any]] = [
        {"type": measure["title"], "value": str(figures[measure["key"]]), "slice": slice_}
        for measure in measures
        if measure["key"] in figures and measure.get("group") == measures[0].get("group")
    ]
    if {"retention", "retention_low", "retention_high"} <= set(figures):
        interval = {"lowerBound": str(figures["retention_low"]), "upperBound": str(figures["retention_high"])}
        measured.append(
            {
                "type": f"share of the teacher's {measures[0]['title']} that is kept",
                "value": str(figures["retention"]),
                "slice": slice_,
                "confidenceInterval": interval,
            }
        )
    network = ((record.get("params") or {}).get("student") or {}).get("network") or {}
    card: dict[str, Any] = {
        "modelParameters": {
            "approach": {"type": "self-supervised"},
            "task": str(record["task"]),
            "architectureFamily": str(network.get("kind", "causal_transformer")),
            "modelArchitecture": f"{record['choice']['chosen']} (ONNX)",
            "datasets": [
                {"ref": f"{kind}:{record['lineage'][kind]}"} for kind in ("dataset",) if kind in record["lineage"]
            ],
            "inputs": [{"format": _described(one)} for one in materials.signature.get("inputs", ())],
            "outputs": [{"format": _described(one)} for one in materials.signature.get("outputs", ())],
        },
        "quantitativeAnalysis": {"performanceMetrics": measured},
        "considerations": {
            "technicalLimitations": [
                "It knows the items of its vocabulary only.",
                "It repeats the leanings of its data, popularity first of all.",
            ],
            "performanceTradeoffs": [
                f"{record['model_bytes']} bytes instead of the teacher's {record['teacher']['bytes']}."
            ],
        },
        "properties": _properties(**{name: figures.get(name) for name in ("p50_ms", "p95_ms", "parameters")}),
    }
    return card


def _described(one: Mapping[str, Any]) -> str:
    return f"{one['name']}: {one['type']} {[str(size) for size in one['shape']]}".replace("'", "")


def _library(name: str, version: str) -> dict[str, Any]:
    # As the package index writes names: https://packaging.python.org/specifications/name-normalization
    purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version.replace('+', '%2B')}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _file(name: str, sha256: str, prefix: str) -> dict[str, Any]:
    return {"type": "file", "bom-ref": f"{prefix}/{name}:{sha256}", "name": name, "hashes": [_sha256(sha256)]}


def _sha256(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest}


def _properties(**values: Any) -> list[dict[str, str]]:
    return [{"name": f"recstill:{name}", "value": str(plain(one))} for name, one in values.items() if one is not None]
