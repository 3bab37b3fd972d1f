import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from components.compression.openvino_form import write_openvino
from components.data.dataset import PreparedDataset
from components.errors import DataError, IntegrityError
from components.networks.building import read_network
from components.serving.batch_answering import answer_file
from components.serving.batch_predictor import BatchPredictor
from components.serving.predictor import Predictor
from components.tasks.building import open_task


@pytest.fixture(scope="module")
def predictor(package: Path) -> Predictor:
    return Predictor(package)


def test_every_line_is_answered_as_alone_and_in_its_order(predictor: Predictor, package: Path, tmp_path: Path) -> None:
    golden = json.loads((package / "golden.json").read_text())["requests"]
    requests = [{"history": one["history"], "k": k} for k, one in enumerate(golden, 1)] * 2
    (tmp_path / "requests.jsonl").write_text("\n\n".join(map(json.dumps, requests)) + "\n")
    done = answer_file(predictor, tmp_path / "requests.jsonl", tmp_path / "answers.jsonl", together=1)
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert done.requests == len(requests) == len(answers) and done.rate > 0
    assert answers == [
        json.loads(json.dumps(predictor.answering.record(predictor.ask({"exclude_seen": True, **one}))))
        for one in requests
    ]


def test_a_line_that_is_no_request_is_named_and_nothing_is_written(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "requests.jsonl").write_text('{"history": []}\n{"histroy": []}\n')
    with pytest.raises(DataError, match=r"requests.jsonl, line 2: the request is refused: .*histroy"):
        answer_file(predictor, tmp_path / "requests.jsonl", tmp_path / "answers.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["requests.jsonl"]
    with pytest.raises(DataError, match=r"none\.jsonl cannot be read"):
        answer_file(predictor, tmp_path / "none.jsonl", tmp_path / "answers.jsonl")


def test_a_folder_without_the_form_for_batches_is_refused(package: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no openvino.json\n .*quantization.openvino"):
        BatchPredictor(package, tmp_path)


@pytest.mark.skipif(find_spec("openvino") is None or find_spec("nncf") is None, reason="needs the extra")
def test_openvino_answers_in_batches_what_the_package_does_nearly(
    predictor: Predictor, package: Path, artifacts: Path, prepared: PreparedDataset, tmp_path: Path
) -> None:
    network = read_network(artifacts / "pruned")
    task = open_task("next_item", artifacts / "dataset", network.max_length)
    pruned = predictor.record["lineage"]["pruned"]
    write_openvino(tmp_path, network, task.calibration(64, seed=0), task=task, from_digest=pruned)
    batches = BatchPredictor(package, tmp_path)
    ids = prepared.catalogue["id"].to_list()
    questions = [batches.answering.question({"history": ids[start : start + 5], "k": 10}) for start in range(40)]
    found = [{item.id for item in answer.items} for answer in batches.answer_all(questions)]
    alone = [{item.id for item in predictor.answer_all([question])[0].items} for question in questions]
    assert sum(len(one & other) for one, other in zip(found, alone, strict=True)) > 0.8 * 10 * len(questions)
    assert batches.answer_all(questions[7:8]) == batches.answer_all(questions)[7:8]

    (tmp_path / "model.bin").write_bytes((tmp_path / "model.bin").read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=r"model.bin is missing, or not the file that was made"):
        BatchPredictor(package, tmp_path)
    record = json.loads((tmp_path / "openvino.json").read_text())
    (tmp_path / "openvino.json").write_text(json.dumps({**record, "from_digest": "0" * 64}))
    with pytest.raises(IntegrityError, match="made of another student"):
        BatchPredictor(package, tmp_path)
