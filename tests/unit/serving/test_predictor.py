import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from components.data.dataset import PreparedDataset
from components.errors import DataError, IntegrityError
from components.networks.building import read_network
from components.serving.package_folder import CARD, GOLDEN, MODEL, RECORD, SIGNATURE, VOCABULARY
from components.serving.predictor import Predictor
from components.storage.atomic import write_json
from components.storage.digests import file_digest


@pytest.fixture(scope="module")
def predictor(package: Path) -> Predictor:
    return Predictor(package)


@pytest.fixture(scope="module")
def ids(prepared: PreparedDataset) -> list[str]:
    return prepared.catalogue["id"].to_list()


@pytest.fixture
def copy(package: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(package, tmp_path / "copy"))


def resealed(folder: Path, name: str) -> None:
    """Make the record agree with a file that a test changed."""
    record = json.loads((folder / RECORD).read_text())
    record["files"][name]["sha256"] = file_digest(folder / name)
    write_json(folder / RECORD, record)


def test_it_recommends_what_the_network_scores_highest(predictor: Predictor, artifacts: Path, ids: list[str]) -> None:
    history = [3, 1, 4, 1, 5]
    scores = read_network(artifacts / "pruned")(torch.tensor([history]), torch.tensor([4])).detach().numpy()[0]
    answer = predictor.recommend([ids[item] for item in history], k=5, exclude_seen=False)
    # The package holds an int8 model: close to the network, not equal.
    found = [scores[ids.index(item.id)] for item in answer.items]
    assert np.allclose(found, np.sort(scores)[::-1][:5], atol=0.1 * np.ptp(scores))
    assert [item.score for item in answer.items] == sorted((item.score for item in answer.items), reverse=True)
    assert not answer.from_popularity


def test_items_of_the_whole_history_are_left_out_unless_asked_for(predictor: Predictor, ids: list[str]) -> None:
    history = ids[:30]
    everything = predictor.recommend(history, k=len(ids))
    assert {item.id for item in everything.items} == set(ids[30:])
    assert len(predictor.recommend(history, k=len(ids), exclude_seen=False).items) == len(ids)


def test_only_the_newest_events_of_a_long_history_count(predictor: Predictor, ids: list[str]) -> None:
    newest = ids[:8]
    long, short = (predictor.recommend(history, exclude_seen=False) for history in ([*ids[20:40], *newest], newest))
    assert long == short
    assert predictor.recommend([*newest, ids[9]], exclude_seen=False) != short


def test_unknown_ids_are_passed_over_and_reported(predictor: Predictor, ids: list[str]) -> None:
    answer = predictor.recommend(["no such item", ids[2], "nor this"])
    assert answer.unknown == ["no such item", "nor this"]
    assert answer.items == predictor.recommend([ids[2]]).items


@pytest.mark.parametrize("history", [[], ["no such item"]])
def test_without_a_known_item_the_most_popular_come(
    predictor: Predictor, prepared: PreparedDataset, history: list[str]
) -> None:
    answer = predictor.recommend(history, k=4)
    assert answer.from_popularity
    best = prepared.catalogue.sort("train_events", "item", descending=[True, False]).head(4)
    assert [(item.id, item.score) for item in answer.items] == list(best.select("id", "train_events").iter_rows())


def test_less_than_one_item_is_refused(predictor: Predictor) -> None:
    with pytest.raises(DataError, match="k is 0"):
        predictor.recommend([], k=0)


@pytest.mark.parametrize("name", [MODEL, VOCABULARY, SIGNATURE, GOLDEN, CARD])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_file_that_is_not_what_was_made_is_named(copy: Path, name: str, harm: str) -> None:
    content = bytearray((copy / name).read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content[:-1] if harm == "cut" else content)
    if harm == "remove":
        (copy / name).unlink()
    with pytest.raises(IntegrityError, match=name.replace(".", r"\.")):
        Predictor(copy)


@pytest.mark.parametrize("name", ["../escape.json", "/etc/hostname", ".."])
def test_a_record_cannot_name_a_file_outside(copy: Path, name: str) -> None:
    record = json.loads((copy / RECORD).read_text())
    record["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    write_json(copy / RECORD, record)
    with pytest.raises(IntegrityError, match="not a file of the package"):
        Predictor(copy)


def test_a_folder_that_is_no_package_is_refused(tmp_path: Path, copy: Path) -> None:
    with pytest.raises(DataError, match="not a package"):
        Predictor(tmp_path)
    write_json(copy / RECORD, {**json.loads((copy / RECORD).read_text()), "format": 99})
    with pytest.raises(DataError, match="format"):
        Predictor(copy)


def test_the_golden_requests_pass_on_the_package_and_fail_on_another_model(
    copy: Path, predictor: Predictor, ids: list[str]
) -> None:
    assert predictor.replay_golden() == 4
    table = pl.read_parquet(copy / VOCABULARY)
    table.with_columns(id=pl.Series(ids[1:] + ids[:1])).write_parquet(copy / VOCABULARY)
    resealed(copy, VOCABULARY)
    with pytest.raises(IntegrityError, match="golden request 0"):
        Predictor(copy).replay_golden()


def test_a_swap_of_two_items_that_are_as_good_as_equal_passes(copy: Path) -> None:
    golden = json.loads((copy / GOLDEN).read_text())
    request = golden["requests"][0]
    request["items"][0], request["items"][1] = request["items"][1], request["items"][0]
    request["scores"] = [score + 0.9 * golden["tolerance"] for score in request["scores"]]
    write_json(copy / GOLDEN, golden)
    resealed(copy, GOLDEN)
    assert Predictor(copy).replay_golden() == 4


def test_a_copied_package_answers_without_torch_and_without_a_checkout(
    copy: Path, tmp_path: Path, ids: list[str]
) -> None:
    code = (
        "import sys; from pathlib import Path; from components.serving.predictor import Predictor; "
        f"print(len(Predictor(Path('copy')).recommend(['{ids[0]}']).items)); "
        "print(sorted({'torch', 'pytorch_lightning', 'torchmetrics', 'dvc', 'prefect', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["10", "[]"]
