from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from components.data.dataset import PreparedDataset
from components.data.item_features import ItemFeatures
from components.errors import DataError, IntegrityError, SettingsError
from components.networks.building import new_network, write_network
from components.networks.contract import PredictionNetwork
from components.networks.ensemble import teacher_digest
from components.settings.network import CausalTransformerSettings
from components.settings.teacher import TeacherSettings
from components.settings.training import OptimizationSettings, TrainerSettings
from components.storage.atomic import write_json
from components.storage.folder_store import FolderStore
from components.tasks.batch import ITEM_FEATURES
from components.training.members import TeacherTraining, train_members
from components.training.teacher_store import fetch_teacher, has_teacher, put_teacher
from components.training.warm_start import earlier_teacher, start_from

# As many items as the model is wide: a row of a weight must not be taken for that of an item.
SHAPE = CausalTransformerSettings(dim=8, blocks=1, heads=2, ffn_dim=8, max_length=8, dropout=0.0)
ITEMS = [f"item {number}" for number in range(8)]


def network(seed: int, items: int = len(ITEMS), shape: CausalTransformerSettings = SHAPE) -> PredictionNetwork:
    torch.manual_seed(seed)
    return new_network(shape, items)


def teacher(folder: Path, *members: PredictionNetwork) -> str:
    for number, member in enumerate(members):
        (folder / f"member-{number}").mkdir(parents=True)
        write_network(folder / f"member-{number}", member)
    write_json(folder / "teacher.json", {"members": len(members)})
    digest = teacher_digest(folder)
    write_json(folder / "teacher.json", {"members": len(members), "digest": digest})
    return digest


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    monkeypatch.setenv("RECSTILL_STORE", f"file://{tmp_path / 'store'}")
    return FolderStore(tmp_path / "store")


def test_a_teacher_comes_back_from_the_store_as_it_was(store: FolderStore, tmp_path: Path) -> None:
    digest = teacher(tmp_path / "teacher", network(0), network(1))
    assert not has_teacher(store, digest)
    assert put_teacher(store, tmp_path / "teacher", ITEMS) == digest and has_teacher(store, digest)
    written = {entry.key: entry.modified for entry in store.list("teachers/")}
    put_teacher(store, tmp_path / "teacher", ITEMS)
    assert {entry.key: entry.modified for entry in store.list("teachers/")} == written
    assert teacher_digest(earlier_teacher(digest, 2, tmp_path / "back")) == digest


def test_a_damaged_or_missing_teacher_is_one_clear_error(store: FolderStore, tmp_path: Path) -> None:
    digest = teacher(tmp_path / "teacher", network(0))
    with pytest.raises(DataError, match="there is no teacher"):
        earlier_teacher(digest, 1, tmp_path / "back")
    put_teacher(store, tmp_path / "teacher", ITEMS)
    weights = tmp_path / "store" / "teachers" / digest / "member-0" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match=r"weights\.safetensors"):
        fetch_teacher(store, digest, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_another_teacher_under_the_name_is_refused(store: FolderStore, tmp_path: Path) -> None:
    digest, other = teacher(tmp_path / "one", network(0)), teacher(tmp_path / "other", network(1))
    put_teacher(store, tmp_path / "other", ITEMS)
    (tmp_path / "store" / "teachers" / other).rename(tmp_path / "store" / "teachers" / digest)
    with pytest.raises(IntegrityError, match="another one"):
        earlier_teacher(digest, 1, tmp_path / "back")


def test_rows_follow_item_ids_and_new_items_keep_their_first_rows(store: FolderStore, tmp_path: Path) -> None:
    old = network(0)
    digest = teacher(tmp_path / "teacher", old)
    put_teacher(store, tmp_path / "teacher", ITEMS)
    earlier = earlier_teacher(digest, 1, tmp_path / "back")
    items = ["new", *reversed(ITEMS[2:]), "newer"]
    started = network(5, len(items))
    first = {name: tensor.clone() for name, tensor in started.state_dict().items()}
    start_from(started, earlier, 0, items)
    now, before = started.state_dict(), old.state_dict()
    for row, name in enumerate(items):
        source = before["item.weight"][ITEMS.index(name)] if name in ITEMS else first["item.weight"][row]
        assert torch.equal(now["item.weight"][row], source), name
    for name in set(now) - {"item.weight"}:
        assert torch.equal(now[name], before[name]), name


def test_an_untied_table_of_scores_is_matched_too(store: FolderStore, tmp_path: Path) -> None:
    shape = SHAPE.model_copy(update={"tied": False})
    old = network(0, shape=shape)
    put_teacher(store, tmp_path / "teacher", ITEMS) if teacher(tmp_path / "teacher", old) else None
    started = network(5, shape=shape)
    start_from(started, fetch_teacher(store, teacher_digest(tmp_path / "teacher"), tmp_path / "b"), 0, ITEMS[::-1])
    for table in ("item.weight", "output.weight"):
        assert torch.equal(started.state_dict()[table], old.state_dict()[table].flip(0))


def test_rows_of_features_follow_what_they_stand_for_and_items_keep_their_new_features(
    store: FolderStore, tmp_path: Path
) -> None:
    def described(seed: int, rows: list[int], keys: list[int]) -> PredictionNetwork:
        features = np.array(rows, np.int32)[:, None]
        torch.manual_seed(seed)
        found = ItemFeatures(features, np.ones_like(features, np.float32), np.array(keys))
        return new_network(SHAPE, len(rows), {ITEM_FEATURES: found})

    old = described(0, [0, 1, 2] * 2 + [1, 2], [70, 71, 72])
    digest = teacher(tmp_path / "teacher", old)
    put_teacher(store, tmp_path / "teacher", ITEMS)
    started = described(5, [1, 1, 2], [70, 72, 75, 71])
    first = started.features.weight.detach().clone()
    start_from(started, earlier_teacher(digest, 1, tmp_path / "back"), 0, ["new", *ITEMS[:2]])
    assert torch.equal(started.features.weight[[0, 1, 3]], old.features.weight[[0, 2, 1]])
    assert torch.equal(started.features.weight[2], first[2])
    assert started.features.rows.flatten().tolist() == [1, 1, 2]
    assert torch.equal(started.item.weight[1:], old.item.weight[:2])
    with pytest.raises(SettingsError, match="features some there and None here"):
        start_from(network(1), tmp_path / "back", 0, ITEMS)


def test_another_shape_or_too_few_members_is_one_clear_error(store: FolderStore, tmp_path: Path) -> None:
    digest = teacher(tmp_path / "teacher", network(0))
    put_teacher(store, tmp_path / "teacher", ITEMS)
    with pytest.raises(SettingsError, match="fewer members: 1, and 2"):
        earlier_teacher(digest, 2, tmp_path / "back")
    wider = network(1, shape=SHAPE.model_copy(update={"dim": 16}))
    with pytest.raises(SettingsError, match="dim 8 there and 16 here"):
        start_from(wider, earlier_teacher(digest, 1, tmp_path / "back"), 0, ITEMS)


def test_members_that_the_earlier_teacher_did_not_have_start_anew(
    prepared_folder: Path, prepared: PreparedDataset, store: FolderStore, tmp_path: Path
) -> None:
    optimization = OptimizationSettings.model_validate({"max_epochs": 1, "batch_size": 4, "warmup_share": 0.0})
    settings = TeacherSettings(network=SHAPE, optimization=optimization, members=2)
    given = TeacherTraining(
        prepared_folder, "next_item", settings, TrainerSettings(), 0, tmp_path / "fresh", "shop", None
    )
    fresh = train_members(given)
    teacher(tmp_path / "teacher", network(0, prepared.items))
    digest = put_teacher(store, tmp_path / "teacher", prepared.catalogue["id"].to_list())
    earlier = earlier_teacher(digest, 1, tmp_path / "back")
    warm = train_members(replace(given, scratch=tmp_path / "warm", earlier=earlier))
    same = [torch.equal(a.network.item.weight, b.network.item.weight) for a, b in zip(fresh, warm, strict=True)]
    assert same == [False, True]


def test_a_warm_training_begins_where_the_other_ended(
    prepared_folder: Path, prepared: PreparedDataset, store: FolderStore, tmp_path: Path
) -> None:
    def trained(scratch: str, epochs: int, earlier: Path | None) -> tuple[PredictionNetwork, float]:
        optimization = OptimizationSettings.model_validate(
            {"max_epochs": epochs, "batch_size": 4, "learning_rate": 0.01, "warmup_share": 0.0}
        )
        settings = TeacherSettings(network=SHAPE, optimization=optimization)
        member = train_members(
            TeacherTraining(
                prepared_folder, "next_item", settings, TrainerSettings(), 0, tmp_path / scratch, "shop", earlier
            )
        )[0]
        return member.network, member.result.curve[0].train_loss

    network, cold = trained("cold", 6, None)
    teacher(tmp_path / "teacher", network)
    digest = put_teacher(store, tmp_path / "teacher", prepared.catalogue["id"].to_list())
    _, warm = trained("warm", 1, earlier_teacher(digest, 1, tmp_path / "back"))
    assert warm < 0.9 * cold
