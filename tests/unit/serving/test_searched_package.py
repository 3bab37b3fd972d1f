"""A package that searches its items by an index: the same requests, the same answers, and no byte unverified."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from components.compression.item_index import ItemIndex
from components.data.dataset import PreparedDataset
from components.errors import IntegrityError, SettingsError
from components.networks.building import read_network
from components.serving.package_folder import CARD, INDEX, MODEL, RECORD, SIGNATURE
from components.serving.packaging import PackageContent, write_package
from components.serving.predictor import Predictor
from components.serving.served_model import ServedModel
from components.storage.atomic import write_json
from components.storage.digests import file_digest
from components.tasks.building import open_task
from components.tasks.recommending import Question
from tests.unit.evaluation.tiny_artifacts import MAX_LENGTH, write_searched


@pytest.fixture(scope="module")
def searched(artifacts: Path, content: PackageContent, tmp_path_factory: pytest.TempPathFactory) -> PackageContent:
    folder = tmp_path_factory.mktemp("searched")
    record = write_searched(artifacts, folder)
    choice = {**content.choice, "chosen": record["name"], "variant": record, "sha256": record["sha256"]}
    return dataclasses.replace(content, model=folder / record["file"], choice=choice)


@pytest.fixture(scope="module")
def found(searched: PackageContent, artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a package. Read only."""
    folder = tmp_path_factory.mktemp("found") / "package"
    folder.mkdir()
    write_package(folder, searched, open_task("next_item", artifacts / "dataset", MAX_LENGTH))
    return folder


@pytest.fixture(scope="module")
def ids(prepared: PreparedDataset) -> list[str]:
    return prepared.catalogue["id"].to_list()


@pytest.fixture
def copy(found: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(found, tmp_path / "copy"))


def test_the_index_is_a_file_of_the_package_like_any_other(found: Path, searched: PackageContent) -> None:
    record = json.loads((found / RECORD).read_text())
    index = searched.choice["variant"]["index"]
    assert record["files"][INDEX] == {"bytes": index["bytes"], "sha256": index["sha256"]}
    assert record["model_bytes"] == sum(record["files"][name]["bytes"] for name in (MODEL, INDEX))
    signature = json.loads((found / SIGNATURE).read_text())
    assert [(one["name"], one["shape"]) for one in signature["outputs"]] == [("vector", ["batch", 8])]
    assert set(signature["meaning"]) == {"items", "length", "vector"}
    assert "found in `model.faiss`" in (found / CARD).read_text()


def test_it_recommends_what_the_network_scores_highest(found: Path, artifacts: Path, ids: list[str]) -> None:
    history = [3, 1, 4, 1, 5]
    scores = read_network(artifacts / "pruned")(torch.tensor([history]), torch.tensor([4])).detach().numpy()[0]
    predictor = Predictor(found)
    answer = predictor.recommend([ids[item] for item in history], k=5, exclude_seen=False)
    best, close = np.sort(scores)[::-1][:5], 0.1 * np.ptp(scores)
    assert np.allclose([scores[ids.index(item.id)] for item in answer.items], best, atol=close)
    assert np.allclose([item.score for item in answer.items], best, atol=close)
    assert predictor.replay_golden() == 4


def test_what_is_left_out_and_how_many_come_is_as_with_any_package(found: Path, package: Path, ids: list[str]) -> None:
    predictor, other = Predictor(found), Predictor(package)
    history = ids[:30]
    everything = predictor.recommend(history, k=len(ids), exclude=[ids[40], "no such item"])
    assert {item.id for item in everything.items} == set(ids[30:]) - {ids[40]}
    assert len(predictor.recommend(history, k=len(ids), exclude_seen=False).items) == len(ids)
    assert len(predictor.recommend([*history, *history], k=7).items) == 7
    assert predictor.recommend(["no such item"], k=4) == other.recommend(["no such item"], k=4)
    assert predictor.recommend([ids[2], "nor this"]).unknown == ["nor this"]


def test_several_questions_are_answered_as_each_alone(found: Path, ids: list[str]) -> None:
    predictor = Predictor(found)
    questions = [Question(ids[:3], 4), Question([]), Question(ids[5:6], 2, exclude=[ids[0]])]
    answers = predictor.answer_all(questions)
    assert answers[1].from_popularity and [len(answer.items) for answer in answers] == [4, 10, 2]
    alone = [predictor.answer_all([question])[0] for question in questions]
    assert all(predictor.answering.overlap(one, other) >= 0.5 for one, other in zip(alone, answers, strict=True))


def test_the_service_answers_from_it(found: Path, ids: list[str]) -> None:
    with ThreadPoolExecutor(2) as threads:
        model = ServedModel(found, threads)
        answer = asyncio.run(model.answer(Question(ids[:3], 4)))
    assert answer == Predictor(found).recommend(ids[:3], 4)
    assert model.facts["golden_requests"] == 4
    assert model.facts["files"][INDEX] == file_digest(found / INDEX)


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_index_never_comes_to_faiss(copy: Path, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray((copy / INDEX).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / INDEX).write_bytes(content[:-1] if harm == "cut" else content)
    if harm == "remove":
        (copy / INDEX).unlink()
    monkeypatch.setattr(ItemIndex, "loaded", lambda *_: pytest.fail("the index was read"))
    with pytest.raises(IntegrityError, match=r"model\.faiss"):
        Predictor(copy)


def test_the_index_of_another_model_is_refused_though_the_record_lists_it(copy: Path) -> None:
    other = ItemIndex.built(np.random.default_rng(0).standard_normal((48, 8)).astype(np.float32), "exact")
    (copy / INDEX).write_bytes(other.content())
    record = json.loads((copy / RECORD).read_text())
    record["files"][INDEX]["sha256"] = file_digest(copy / INDEX)
    write_json(copy / RECORD, record)
    with pytest.raises(IntegrityError, match="not the one that the model was made with"):
        Predictor(copy)
    del record["files"][INDEX]
    write_json(copy / RECORD, record)
    (copy / INDEX).unlink()
    with pytest.raises(IntegrityError, match=r"does not list model\.faiss"):
        Predictor(copy)


def test_an_index_that_was_not_evaluated_is_not_packaged(
    searched: PackageContent, artifacts: Path, tmp_path: Path
) -> None:
    index = searched.choice["variant"]["index"]
    variant = {**searched.choice["variant"], "index": {**index, "sha256": "0" * 64}}
    other = dataclasses.replace(searched, choice={**searched.choice, "variant": variant})
    with pytest.raises(IntegrityError, match=r"int8_index\.faiss is not the file that the report chose"):
        write_package(tmp_path, other, open_task("next_item", artifacts / "dataset", MAX_LENGTH))


def test_without_faiss_it_says_what_to_install(found: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SettingsError, match=r"recstill\[faiss\]"):
        Predictor(found)


def test_it_answers_without_torch(found: Path, ids: list[str]) -> None:
    code = (
        "import sys; from pathlib import Path; from components.serving.predictor import Predictor; "
        f"print(len(Predictor(Path({str(found)!r})).recommend(['{ids[0]}']).items)); "
        "print(sorted({'torch', 'onnx', 'dvc'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["10", "[]"]
