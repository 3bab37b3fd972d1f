"""One edit in any of lock, statements, release and bill is named; none is told of what agrees."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from components.provenance.agreement import BESIDE, disagreements
from components.provenance.bill_of_materials import Materials, bill_of_materials
from components.provenance.stage_run import listing, listing_md5
from components.provenance.stage_statement import (
    FileDigests,
    StageStatement,
    folder_hash,
    of_lock_entry,
)
from components.serving import package_folder
from components.serving.releases import Release
from components.storage.digests import record_digest
from tests.unit.provenance.statements import digests_of

DATASET = {"dataset.json": digests_of(b"{}"), "deep/train.parquet": digests_of(b"rows")}
STUDENT = {"architecture.json": digests_of(b'{"dim": 4}'), "weights.safetensors": digests_of(b"weights")}
VARIANTS = {"variants.json": digests_of(b"[]"), "student.int8.onnx": digests_of(b"variant")}
PACKAGE = {name: digests_of(name.encode()) for name in ("package.json", "model.onnx", "signature.json")}
PARAMS = {"task": "next_item", "seed": 0}
LINEAGE = {
    **{"dataset": "d" * 64, "student": "5" * 64, "teacher": "7" * 64, "commit": "c" * 40},
    **{"variant": VARIANTS["student.int8.onnx"].sha256, "params": record_digest(PARAMS), "version": "0.1.0"},
}


def folder(path: str, files: dict[str, FileDigests]) -> dict[str, Any]:
    md5 = listing_md5(listing({name: one.md5 for name, one in files.items()}))
    return {"path": path, "hash": "md5", "md5": md5, "size": 9, "nfiles": len(files)}


def entry(name: str, reads: list[dict[str, Any]], makes: list[dict[str, Any]], params: Any) -> dict[str, Any]:
    code = {"path": f"components/stages/{name}.py", "hash": "md5", "md5": "1" * 32, "size": 9}
    return {
        "cmd": f"python -m {name} tiny",
        "deps": [code, *reads],
        "params": {"params.yaml": params},
        "outs": makes,
    }


OUTS = {
    name: folder(f"artifacts/tiny/{name}", files)
    for name, files in (("dataset", DATASET), ("student", STUDENT), ("quantized", VARIANTS), ("package", PACKAGE))
}
LOCK = {
    "prepare@tiny": entry("prepare", [], [OUTS["dataset"]], {"scenarios.tiny.prepare": {}}),
    "distill@tiny": entry("distill", [OUTS["dataset"]], [OUTS["student"]], {"scenarios.tiny.seed": 0}),
    "quantize@tiny": entry("quantize", [OUTS["student"]], [OUTS["quantized"]], {}),
    "package@tiny": entry("package", [OUTS["quantized"]], [OUTS["package"]], {"scenarios.tiny": PARAMS}),
    "prepare@other": entry("prepare", [], [OUTS["dataset"]], {}),
}
FILES = {"dataset": DATASET, "student": STUDENT, "quantized": VARIANTS, "package": PACKAGE}
DIGESTS = {
    "prepare@tiny": {"dataset": "d" * 64},
    "distill@tiny": {"student": "5" * 64},
    "quantize@tiny": {"variants": VARIANTS["variants.json"].sha256},
    "package@tiny": {"package": PACKAGE["package.json"].sha256},
}


def attested(address: str) -> StageStatement:
    facts = of_lock_entry(address, LOCK[address])
    (output,) = facts["outputs"]
    (files,) = [files for name, files in FILES.items() if output.endswith(name)]
    read = [path.rpartition("/")[2] for path in facts["inputs"]]
    return StageStatement(
        **facts,
        subjects={f"{output}/{name}": one for name, one in files.items()},
        commit="c" * 40,
        dirty=False,
        who="Tess Ter <tess@example.org>",
        attached="during the run",
        digests=DIGESTS[address],
        input_sha256={
            f"artifacts/tiny/{name}": folder_hash({file: one.sha256 for file, one in FILES[name].items()})
            for name in read
        },
    )


@dataclass
class World:
    """All that has to agree, to be changed in one place."""

    lock: dict[str, Any]
    statements: list[StageStatement]
    release: Release
    bom: dict[str, Any]

    def lines(self) -> list[str]:
        return disagreements(self.lock, self.statements, self.release, self.bom)

    def edit(self, number: int, **changes: Any) -> None:
        self.statements[number] = replace(self.statements[number], **changes)


@pytest.fixture
def world() -> World:
    statements = [attested(address) for address in LOCK if address.endswith("@tiny")]
    files = {name: one.sha256 for name, one in PACKAGE.items()}
    figures = {"ndcg10": 0.1, "bytes": 10}
    record = {
        **{"name": "tiny", "task": "next_item", "recstill": "0.1.0", "lineage": LINEAGE, "metrics": figures},
        **{"choice": {"chosen": "student.int8", "reason": "the smallest", "made_from": "student"}, "model_bytes": 10},
        **{"teacher": {"bytes": 100}, "test": {"targets": 5, "users": 5}, "params": PARAMS},
    }
    materials = Materials(
        name="tiny",
        version=2,
        commit="e" * 40,
        created="2026-05-03T10:00:00+00:00",
        package=files["package.json"],
        files=files,
        record=record,
        signature={},
        source={},
        statements=statements,
        bundle="b" * 64,
        requirements="torch==2.13.0\n",
    )
    release = Release(
        name="tiny",
        version=2,
        package=files["package.json"],
        files={**files, "gate.json": "a" * 64, "provenance.intoto.jsonl": "b" * 64, "bom.cdx.json": "f" * 64},
        sizes={},
        commit="e" * 40,
        created="2026-05-03T10:00:00+00:00",
        lineage=LINEAGE,
        gate={},
        attestation="0" * 64,
        signed_by="1" * 64,
        dirty=False,
        run_key="2" * 64,
    )
    return World(json.loads(json.dumps(LOCK)), statements, release, json.loads(bill_of_materials(materials)))


def test_what_agrees_is_not_complained_of(world: World) -> None:
    assert world.lines() == []
    assert disagreements(world.lock, world.statements) == []
    assert disagreements(world.lock, world.statements, world.release) == []


def test_the_order_of_the_statements_does_not_matter(world: World) -> None:
    world.statements.reverse()
    assert world.lines() == []


def swap_package(world: World) -> None:
    other = {**world.release.files, "model.onnx": "9" * 64}
    world.release = replace(world.release, files=other)


def ancestor(world: World) -> dict[str, Any]:
    return world.bom["metadata"]["component"]["pedigree"]["ancestors"][0]


CHANGES: dict[str, tuple[Callable[[World], Any], str]] = {
    "an output in the lock": (
        lambda world: world.lock["distill@tiny"]["outs"][0].update(md5=f"{'9' * 32}.dir"),
        "distill@tiny: the MD5 of artifacts/tiny/student: dvc.lock says 9999",
    ),
    "an input in the lock": (
        lambda world: world.lock["distill@tiny"]["deps"][1].update(md5=f"{'9' * 32}.dir"),
        "distill@tiny: dvc.lock has it read artifacts/tiny/dataset of MD5 9999",
    ),
    "code in the lock": (
        lambda world: world.lock["distill@tiny"]["deps"][0].update(md5="9" * 32),
        "distill@tiny: the MD5 of components/stages/distill.py: dvc.lock says 9999",
    ),
    "a parameter in the lock": (
        lambda world: world.lock["distill@tiny"]["params"]["params.yaml"].update({"scenarios.tiny.seed": 1}),
        "distill@tiny: parameter scenarios.tiny.seed: dvc.lock says 1, its statement 0",
    ),
    "the command in the lock": (
        lambda world: world.lock["distill@tiny"].update(cmd="rm -r /"),
        "distill@tiny: dvc.lock has the command 'rm -r /'",
    ),
    "a size in the lock": (
        lambda world: world.lock["distill@tiny"]["outs"][0].update(size=10),
        "distill@tiny: its entry in dvc.lock is",
    ),
    "a stage of the lock is gone": (
        lambda world: world.lock.pop("distill@tiny"),
        "distill@tiny: a statement is about it, and dvc.lock does not record it",
    ),
    "a statement is gone": (
        lambda world: world.statements.pop(1),
        "distill@tiny: no statement is about it",
    ),
    "a statement is there twice": (
        lambda world: world.statements.append(world.statements[1]),
        "distill@tiny: 2 statements are about it",
    ),
    "a subject of a statement": (
        lambda world: world.edit(
            1,
            subjects={**world.statements[1].subjects, "artifacts/tiny/student/weights.safetensors": digests_of(b"x")},
        ),
        "distill@tiny: its statement names artifacts/tiny/student by MD5",
    ),
    "a subject that belongs to no output": (
        lambda world: world.edit(1, subjects={**world.statements[1].subjects, "artifacts/x": digests_of(b"x")}),
        "distill@tiny: its statement attests artifacts/x, which is no output of it",
    ),
    "the SHA-256 of an input": (
        lambda world: world.edit(1, input_sha256={"artifacts/tiny/dataset": "9" * 64}),
        "distill@tiny: its statement has it read artifacts/tiny/dataset of SHA-256 9999",
    ),
    "a digest of a statement": (
        lambda world: world.edit(0, digests={"dataset": "9" * 64}),
        "tiny@v2: it names the dataset dddd",
    ),
    "no statement about the package": (
        lambda world: world.edit(3, digests={}),
        "tiny@v2: no statement is about its package",
    ),
    "the package of the release": (
        lambda world: setattr(world, "release", replace(world.release, package="9" * 64)),
        "tiny@v2: its package is 9999",
    ),
    "a file of the release": (
        swap_package,
        "tiny@v2: the SHA-256 of model.onnx: the release says 9999",
    ),
    "the lineage of the release": (
        lambda world: setattr(world, "release", replace(world.release, lineage={**LINEAGE, "student": "9" * 64})),
        "tiny@v2: it names the student 9999",
    ),
    "the variant of the release": (
        lambda world: setattr(world, "release", replace(world.release, lineage={**LINEAGE, "variant": "9" * 64})),
        "tiny@v2: it ships the variant 9999",
    ),
    "the parameters of the release": (
        lambda world: setattr(world, "release", replace(world.release, lineage={**LINEAGE, "params": "9" * 64})),
        "tiny@v2: it names the parameters 9999",
    ),
    "the origin of the package": (
        lambda world: setattr(world, "release", replace(world.release, lineage={**LINEAGE, "commit": "9" * 40})),
        "tiny@v2: its package says commit 9999",
    ),
    "a dirty tree that is kept quiet about": (
        lambda world: world.edit(0, dirty=True),
        "tiny@v2: it says that all code was in a commit",
    ),
    "the version in the bill": (
        lambda world: world.bom["metadata"]["component"].update(version="1"),
        "tiny@v2: version: the release says 2, its bill of materials 1",
    ),
    "the model in the bill": (
        lambda world: world.bom["metadata"]["component"]["hashes"][0].update(content="9" * 64),
        "tiny@v2: model.onnx: the release says",
    ),
    "a file in the bill": (
        lambda world: world.bom["metadata"]["component"]["components"][0]["hashes"][0].update(content="9" * 64),
        "tiny@v2: the SHA-256 of model.onnx: the release says",
    ),
    "the bundle in the bill": (
        lambda world: world.bom["metadata"]["component"]["externalReferences"][0]["hashes"][0].update(content="9" * 64),
        "tiny@v2: provenance.intoto.jsonl: the release says bbbb",
    ),
    "the commit in the bill": (
        lambda world: world.bom["metadata"]["properties"][0].update(value="9" * 40),
        "tiny@v2: commit: the release says eeee",
    ),
    "an ancestor in the bill": (
        lambda world: ancestor(world)["properties"][0].update(value="9" * 64),
        "tiny@v2: the student: the release says 5555",
    ),
    "a file of an ancestor in the bill": (
        lambda world: ancestor(world)["components"][0]["hashes"][0].update(content="9" * 64),
        "tiny-student: the bill of materials lists artifacts/tiny/student/architecture.json of SHA-256 9999",
    ),
    "the data set in the bill": (
        lambda world: world.bom["components"][0]["properties"][0].update(value="9" * 64),
        "tiny@v2: the dataset: the release says dddd",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_one_edit_is_named(world: World, name: str) -> None:
    change, expected = CHANGES[name]
    change(world)
    lines = world.lines()
    assert any(line.startswith(expected) for line in lines), lines


def test_another_scenario_of_the_lock_is_not_looked_at(world: World) -> None:
    world.lock["prepare@other"]["outs"][0]["md5"] = "9" * 32
    assert world.lines() == []


def test_what_lies_beside_a_package_is_known_here_too() -> None:
    assert {*BESIDE, package_folder.ATTESTATION} == set(package_folder._OF_RELEASE)
