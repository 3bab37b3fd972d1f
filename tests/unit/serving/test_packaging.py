import dataclasses
import json
import re
from pathlib import Path

import onnx
import pytest
import yaml

from components.data.dataset import PreparedDataset
from components.errors import IntegrityError
from components.evaluation.selection import LINEAGE_BYTES
from components.serving.package_folder import CARD, GOLDEN, MODEL, RECORD, SIGNATURE, VOCABULARY
from components.serving.packaging import PackageContent, write_package
from components.storage.digests import file_digest
from components.tasks.building import open_task
from tests.unit.serving.conftest import LINEAGE


def read(path: Path) -> dict:
    return json.loads(path.read_text())


def test_the_record_lists_every_file_with_its_digest(package: Path) -> None:
    record = read(package / RECORD)
    assert set(record["files"]) == {MODEL, VOCABULARY, SIGNATURE, GOLDEN, CARD}
    assert {path.name for path in package.iterdir()} == {*record["files"], RECORD}
    for name, entry in record["files"].items():
        assert entry == {"bytes": (package / name).stat().st_size, "sha256": file_digest(package / name)}


def test_the_model_itself_says_where_it_comes_from(package: Path, content: PackageContent) -> None:
    model = onnx.load(package / MODEL)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert {key: metadata[f"recstill.{key}"] for key in LINEAGE} == LINEAGE
    assert read(package / RECORD)["lineage"] == LINEAGE
    assert model.graph == onnx.load(content.model).graph
    assert (package / MODEL).stat().st_size <= content.model.stat().st_size + LINEAGE_BYTES


def test_the_signature_is_that_of_the_graph(package: Path, prepared: PreparedDataset) -> None:
    signature = read(package / SIGNATURE)
    assert {value["name"]: value["shape"] for value in signature["inputs"]} == {
        "items": ["batch", "length"],
        "length": ["batch"],
    }
    assert [(value["name"], value["shape"][1]) for value in signature["outputs"]] == [("scores", prepared.items)]
    assert signature["max_length"] == 8


def test_golden_requests_name_items_and_no_user(package: Path, prepared: PreparedDataset) -> None:
    golden = read(package / GOLDEN)
    assert [len(request["history"]) for request in golden["requests"]] == [1, 3, 8, 20]
    assert all(set(request) == {"history", "k", "exclude_seen", "items", "scores"} for request in golden["requests"])
    known = set(prepared.catalogue["id"])
    assert all(known >= {*request["history"], *request["items"]} for request in golden["requests"])
    assert golden["tolerance"] > 0


def test_the_card_has_front_matter_that_a_hub_can_read(package: Path) -> None:
    text = (package / CARD).read_text()
    found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
    assert found is not None
    front = yaml.safe_load(found[1])
    assert front["library_name"] == "onnx"
    assert "recommender-system" in front["tags"]
    results = front["model-index"][0]["results"][0]
    assert {metric["type"]: metric["value"] for metric in results["metrics"]}["ndcg10"] == 0.0931
    assert front["recstill"]["lineage"]["teacher"] == LINEAGE["teacher"]
    assert results["dataset"]["name"] == "Synthetic interactions"
    assert front["base_model"] == f"recstill/tiny-teacher-{LINEAGE['teacher'][:12]}"
    assert front["base_model_relation"] == "quantized"
    assert front["datasets"] == [f"recstill/tiny-dataset-{LINEAGE['dataset'][:12]}"]
    # As the hub wants the names of repositories.
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]{1,96}", name) for name in (front["base_model"], *front["datasets"]))
    assert "They are no repositories of a hub" in text


def test_the_same_content_gives_the_same_package(
    package: Path, content: PackageContent, artifacts: Path, tmp_path: Path
) -> None:
    write_package(tmp_path, content, open_task("next_item", artifacts / "dataset", 8))
    assert read(tmp_path / RECORD) == read(package / RECORD)


def test_a_model_that_was_not_evaluated_is_refused(content: PackageContent, artifacts: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(content, model=artifacts / "quantized" / "pruned.fp32.onnx")
    with pytest.raises(IntegrityError, match="not the file that the report chose"):
        write_package(tmp_path, other, open_task("next_item", artifacts / "dataset", 8))
