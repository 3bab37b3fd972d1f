import shutil
from pathlib import Path

import pytest

from components.errors import DataError
from components.evaluation.contenders import contenders_of, reference_of, training_seconds
from components.networks.building import new_network, read_network, write_network
from components.networks.ensemble import teacher_digest
from components.settings.network import CausalTransformerSettings
from components.storage.atomic import write_json
from components.storage.checkpoints import WEIGHTS_FILE, checkpoint_digest
from components.tasks.batch import ITEM_FEATURES
from tests.unit.compression.shaken import item_features
from tests.unit.evaluation.tiny_artifacts import MAX_LENGTH, SHAPES

UNTRAINED = {"popularity": "Popularity", "item_knn": "Item-kNN"}
NAMES = [
    *("teacher", "teacher_member", "baseline", "student", "pruned"),
    *("pruned.fp32", "pruned.int8_dynamic", "popularity", "item_knn"),
]


def test_everything_that_a_scenario_made_is_compared(artifacts: Path) -> None:
    found = {contender.name: contender for contender in contenders_of(artifacts, UNTRAINED)}
    assert sorted(found) == sorted(NAMES)
    member = found["teacher_member"]
    assert found["teacher"].parameters == 2 * (member.parameters or 0)
    assert found["teacher"].bytes == 2 * (member.bytes or 0)
    assert found["teacher"].digest == teacher_digest(artifacts / "teacher")
    assert found["pruned"].digest == checkpoint_digest(artifacts / "pruned")
    assert found["pruned.fp32"].parameters == found["pruned"].parameters
    assert found["pruned.fp32"].bytes == (artifacts / "quantized" / "pruned.fp32.onnx").stat().st_size
    assert reference_of(list(found.values())) is member


def test_only_files_made_from_the_student_may_ship(artifacts: Path) -> None:
    assert [found.name for found in contenders_of(artifacts, UNTRAINED) if found.shippable] == [
        found.name for found in contenders_of(artifacts, UNTRAINED) if found.name.startswith("pruned.")
    ]


def test_a_teacher_of_one_is_its_own_reference(artifacts: Path, tmp_path: Path) -> None:
    shutil.copytree(artifacts, tmp_path / "one")
    write_json(tmp_path / "one" / "teacher" / "teacher.json", {"members": 1})
    found = contenders_of(tmp_path / "one", UNTRAINED)
    assert "teacher_member" not in [contender.name for contender in found]
    assert reference_of(found).name == "teacher"


def test_what_is_folded_away_before_serving_does_not_count(artifacts: Path, tmp_path: Path) -> None:
    shutil.copytree(artifacts, tmp_path / "described")
    before = {contender.name: contender for contender in contenders_of(artifacts, UNTRAINED)}
    for name, (dim, blocks, ffn_dim) in SHAPES.items():
        items = read_network(artifacts / name).outcomes
        shape = CausalTransformerSettings(dim=dim, blocks=blocks, ffn_dim=ffn_dim, heads=2, max_length=MAX_LENGTH)
        network = new_network(shape, items, {ITEM_FEATURES: item_features(items)})
        write_network(tmp_path / "described" / name, network)
    for contender in contenders_of(tmp_path / "described", UNTRAINED):
        assert contender.parameters == before[contender.name].parameters
        # Names and shapes in the head of the files.
        assert abs((contender.bytes or 0) - (before[contender.name].bytes or 0)) < 1000
    assert (tmp_path / "described" / "student" / WEIGHTS_FILE).stat().st_size > 1000 + (before["student"].bytes or 0)


def test_training_seconds_are_those_of_the_stages_that_made_it(artifacts: Path) -> None:
    found = {contender.name: contender for contender in contenders_of(artifacts, UNTRAINED)}
    costs = {"train_teacher": {"seconds": 60.0}, "distill": {"seconds": 8.0}, "prune": {"seconds": 2.0}}
    assert training_seconds(found["teacher"], costs, 2) == 60
    assert training_seconds(found["teacher_member"], costs, 2) == 30
    assert training_seconds(found["student"], costs, 2) == 8
    assert training_seconds(found["pruned.int8_dynamic"], costs, 2) == 10
    assert training_seconds(found["popularity"], costs, 2) is None
    assert training_seconds(found["baseline"], costs, 2) is None


def test_a_missing_network_is_an_error_that_names_it(artifacts: Path, tmp_path: Path) -> None:
    shutil.copytree(artifacts, tmp_path / "less")
    shutil.rmtree(tmp_path / "less" / "student")
    with pytest.raises(DataError, match="student"):
        contenders_of(tmp_path / "less", UNTRAINED)
