import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.errors import IntegrityError
from components.provenance.bill_of_materials import Materials, bill_of_materials, bill_problems
from components.storage.atomic import read_json
from components.storage.digests import file_digest
from tests.unit.provenance.statements import FILES, statement
from tests.unit.serving.conftest import LINEAGE, artifacts, content, package  # noqa: F401  # fixtures

PINS = "# pinned\ntorch==2.13.0\nruamel.yaml==0.19.1\nPyYAML==6.0.3\nlocal==1.0+cpu\n"


@pytest.fixture
def materials(package: Path) -> Materials:  # noqa: F811
    files = {path.name: file_digest(path) for path in package.iterdir()}
    return Materials(
        name="tiny",
        version=3,
        commit="1" * 40,
        created="2026-05-03T10:00:00+00:00",
        package=files["package.json"],
        files=files,
        record=read_json(package / "package.json"),
        signature=read_json(package / "signature.json"),
        source={"kind": "synthetic", "events": 10, "about": {"title": "Synthetic", "licence": "ask the owner"}},
        statements=[statement(digests={"student": LINEAGE["student"]})],
        bundle="b" * 64,
        requirements=PINS,
    )


def bill(materials: Materials) -> dict[str, Any]:
    return json.loads(bill_of_materials(materials))


def test_a_bill_is_valid_and_the_same_materials_give_the_same_one(materials: Materials) -> None:
    assert bill_problems(bill_of_materials(materials)) == []
    assert bill_of_materials(materials) == bill_of_materials(materials)
    other = bill(replace(materials, commit="2" * 40))
    assert other["serialNumber"] != bill(materials)["serialNumber"]


def test_the_model_descends_from_pruned_student_and_teacher(materials: Materials) -> None:
    model = bill(materials)["metadata"]["component"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": materials.files["model.onnx"]}]
    assert (model["type"], model["name"], model["version"]) == ("machine-learning-model", "tiny", "3")
    line = []
    while ancestors := model.get("pedigree", {}).get("ancestors"):
        (model,) = ancestors
        line.append(model["bom-ref"])
    assert line == [f"{kind}:{LINEAGE[kind]}" for kind in ("pruned", "student", "teacher")]


def test_the_files_of_an_ancestor_are_those_that_its_statement_attests(materials: Materials) -> None:
    student = bill(materials)["metadata"]["component"]["pedigree"]["ancestors"][0]["pedigree"]["ancestors"][0]
    listed = {one["name"]: one["hashes"][0]["content"] for one in student["components"]}
    assert listed == {path: one.sha256 for path, one in FILES.items() if "/student/" in path}


def test_a_student_that_ships_unpruned_has_no_pruned_ancestor(materials: Materials) -> None:
    record = {**materials.record, "choice": {**materials.record["choice"], "made_from": "student"}}
    (ancestor,) = bill(replace(materials, record=record))["metadata"]["component"]["pedigree"]["ancestors"]
    assert ancestor["bom-ref"] == f"student:{LINEAGE['student']}"


def test_data_and_libraries_are_listed(materials: Materials) -> None:
    components = bill(materials)["components"]
    refs = [one["bom-ref"] for one in components]
    assert refs[:3] == [f"{kind}:{LINEAGE[kind]}" for kind in ("soft_labels", "dataset", "source")]
    assert components[2]["licenses"] == [{"license": {"name": "ask the owner"}}]
    assert [one["purl"] for one in components[3:]] == [
        "pkg:pypi/torch@2.13.0",
        "pkg:pypi/ruamel-yaml@0.19.1",
        "pkg:pypi/pyyaml@6.0.3",
        "pkg:pypi/local@1.0%2Bcpu",
    ]


def test_the_card_holds_figures_and_the_bundle_is_referred_to(materials: Materials) -> None:
    model = bill(materials)["metadata"]["component"]
    card = model["modelCard"]
    measured = {one["type"]: one["value"] for one in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert measured["NDCG@10"] == "0.0931"
    assert card["modelParameters"]["datasets"] == [{"ref": f"dataset:{LINEAGE['dataset']}"}]
    assert model["externalReferences"][0]["hashes"][0]["content"] == materials.bundle


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("specVersion",), "1.5"),
        (("metadata", "component", "modelCard", "unknown"), 1),
        (("metadata", "component", "hashes", 0, "content"), "short"),
        (("components", 0, "type"), "dataset"),
        (("serialNumber",), "urn:uuid:none"),
        (("metadata", "timestamp"), "yesterday"),
    ],
)
def test_a_bill_that_is_not_of_the_schema_is_noticed(materials: Materials, path: tuple, value: object) -> None:
    document = bill(materials)
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    assert bill_problems(json.dumps(document).encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{"])
def test_what_is_no_bill_at_all_is_noticed(content: bytes) -> None:  # noqa: F811
    assert bill_problems(content)


def test_a_bill_that_would_not_be_valid_is_not_made(materials: Materials) -> None:
    with pytest.raises(IntegrityError, match="the bill of materials of tiny@v3: not valid"):
        bill_of_materials(replace(materials, created="yesterday"))
