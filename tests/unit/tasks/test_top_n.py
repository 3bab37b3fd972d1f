"""Items of users: from tables with a split of their own to a package that recommends, by the real stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import polars as pl
import pytest
import torch
import yaml

from components.compression.running import outputs_of
from components.compression.surgery import check_mask_equivalence, cut
from components.errors import DataError, SettingsError
from components.networks.building import new_network, read_network
from components.networks.matrix_factorization import user_rows
from components.serving.predictor import Predictor
from components.settings.top_n_network import MatrixFactorizationSettings
from components.stages import ingest, train_teacher
from components.stages.workspace import Workspace
from components.storage.atomic import read_json
from components.tasks.building import open_task
from components.tasks.item_sets import ItemSets
from components.tasks.top_n import TopN
from tests.unit.tasks.whole_runs import run

OPTIMIZATION = {"max_epochs": 6, "patience": 6, "batch_size": 32, "learning_rate": 0.03, "average_decay": 0.8}
SCENARIO: dict[str, Any] = {
    "task": "top_n",
    "seed": 0,
    "source": {"kind": "split-table", "path": "sets", "columns": {"user": "who"}},
    "prepare": {"split": "given", "min_user_events": 3},
    "teacher": {
        "network": {"kind": "matrix_factorization", "dim": 12, "max_length": 64},
        "optimization": {
            "kind": "alternating_least_squares",
            "max_epochs": 4,
            "unobserved": 0.1,
            "regularization": 0.05,
        },
    },
    "student": {"network": {"kind": "two_tower", "dim": 8, "hidden": [16], "dropout": 0}, "optimization": OPTIMIZATION},
    "trainer": {"accelerator": "cpu"},
    "soft_labels": {"codec": "top_k_tail", "k": 16, "hidden_states": True, "rows_per_part": 64},
    "distillation": {
        "losses": [
            {"kind": "cross_entropy", "weight": 0.3},
            {"kind": "divergence", "weight": 0.7},
            {"kind": "relaxed_ranking", "weight": 0.01, "among": 16, "interesting": 4, "uninteresting": 8},
            {"kind": "topology", "weight": 0.1},
        ]
    },
    "pruning": {"ffn_ratio": 0.5, "optimization": {**OPTIMIZATION, "max_epochs": 1}},
    "quantization": {
        "variants": ["fp32", "int8_table4"],
        "table_block": 16,
        "calibration_histories": 32,
        "fine_tuning": {"steps": 3},
    },
    "evaluation": {"bootstrap_samples": 100, "latency_requests": 10, "throughput_batches": 2},
    "budget": {},
    "gate": {"min_retention": 0.3},
}
GROUPS, ITEMS, USERS = 5, 60, 150


def sets() -> dict[str, pl.DataFrame]:
    """Users with a taste for one group of items, popular ones more often; two of each user are held out."""
    random = np.random.default_rng(0)
    rows: dict[str, list[tuple[str, int]]] = {"train": [], "validation": [], "test": []}
    for user in range(USERS):
        chance = np.where(np.arange(ITEMS) % GROUPS == user % GROUPS, 8.0, 0.2) / (3 + np.arange(ITEMS) // GROUPS)
        taken = random.choice(ITEMS, int(random.integers(4, 9)), replace=False, p=chance / chance.sum()).tolist()
        rows["test"].append((f"u{user}", taken[0]))
        rows["validation"].append((f"u{user}", taken[1]))
        rows["train"] += [(f"u{user}", item) for item in taken[2:]]
    return {name: pl.DataFrame(part, schema=["who", "item"], orient="row") for name, part in rows.items()}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which every stage has run. Read only."""
    root = tmp_path_factory.mktemp("sets")
    (root / "sets").mkdir()
    for name, table in sets().items():
        table.write_csv(root / "sets" / f"{name}.csv")
    return run(root, "tiny", SCENARIO)


@pytest.fixture
def task(finished: Path) -> TopN:
    found = open_task("top_n", finished / "dataset", 64)
    assert isinstance(found, TopN)
    return found


def sets_of(task: TopN) -> list[set[int]]:
    data = task.dataset
    return [set(data.item[(data.user == user) & (data.split == 0)].tolist()) for user in range(data.users)]


def test_the_split_is_the_source_s_own(finished: Path) -> None:
    people = dict(pl.read_parquet(finished / "dataset" / "users.parquet").select("user", "id").iter_rows())
    words = dict(pl.read_parquet(finished / "dataset" / "items.parquet").select("item", "id").iter_rows())
    for name, expected in sets().items():
        table = pl.read_parquet(finished / "dataset" / f"{name}.parquet")
        found = {(people[user], words[item]) for user, item in table.select("user", "item").iter_rows()}
        assert found == {(user, str(item)) for user, item in expected.iter_rows()}
    source = read_json(finished / "source.json")
    assert source["first_event"] is None and source["files"][0]["name"] == "train.csv"


def test_every_figure_is_there_and_taste_beats_popularity(finished: Path) -> None:
    metrics = read_json(finished / "report" / "metrics.json")
    assert metrics["measures"][0]["key"] == "recall50" and metrics["test_targets"] == USERS
    contenders = metrics["contenders"]
    for name in ("teacher", "student", "pruned.int8_table4"):
        assert contenders[name]["ndcg10"] > 1.3 * contenders["popularity"]["ndcg10"], name
        assert {"recall50", "recall10", "ndcg50", "mrr", "coverage10"} <= contenders[name].keys()
    assert contenders["pruned"]["parameters"] < contenders["student"]["parameters"]
    assert read_json(finished / "dataset" / "dataset.json")["points"] == USERS


def test_a_package_serves_users_that_nobody_has_seen_and_names_none(finished: Path) -> None:
    predictor = Predictor(finished / "package")
    answer = predictor.ask({"history": ["0", "5", "10", "unheard of"], "k": 3})
    assert answer.unknown == ["unheard of"] and int(answer.items[0].id) % GROUPS == 0
    assert not {item.id for item in answer.items} & {"0", "5", "10"}
    assert predictor.ask({"history": []}).from_popularity
    assert predictor.replay_golden() == 16
    for path in (finished / "package").iterdir():
        assert b'"u12"' not in path.read_bytes()


def test_an_epoch_asks_every_user_once_for_what_it_does_not_show(task: TopN) -> None:
    whole = sets_of(task)
    points = []
    for batch in task.training_batches(16, seed=1, epoch=0):
        items, length = batch.inputs
        assert batch.left_out is not None and batch.known is not None and batch.step_points == len(batch.points)
        for row, point in enumerate(batch.points.tolist()):
            shown = items[row, : length[row]].tolist()
            asked = [item for item in batch.targets[row].tolist() if item >= 0]
            assert set(shown) | set(asked) == whole[point] and asked
            left_out = batch.left_out[1][batch.left_out[0] == row].tolist()
            assert set(left_out) == (set(shown) if len(whole[point]) > 1 else set())
            assert not set(left_out) & set(asked)
            assert set(batch.known[1][batch.known[0] == row].tolist()) == whole[point]
            seen, count = batch.whole  # type: ignore[misc]
            assert set(seen[row, : count[row]].tolist()) == whole[point]
        points += batch.points.tolist()
    assert sorted(points) == list(range(task.points))
    again, other = (list(task.training_batches(16, seed=1, epoch=epoch)) for epoch in (0, 1))
    assert torch.equal(again[0].targets, next(iter(task.training_batches(16, seed=1, epoch=0))).targets)
    assert [batch.points.tolist() for batch in again] != [batch.points.tolist() for batch in other]


def test_devices_divide_the_users_of_each_step(task: TopN) -> None:
    whole = task.training_batches(16, seed=0, epoch=0)
    shares = [task.training_batches(16, seed=0, epoch=0, rank=rank, world=20) for rank in range(20)]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert sorted(torch.cat([part.points for part in parts]).tolist()) == sorted(batch.points.tolist())
        assert {part.step_points for part in parts} == {len(batch.points)}


def test_soft_labels_give_no_chance_to_what_the_user_has(finished: Path, task: TopN) -> None:
    from components.soft_labels.reader import open_labels

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECSTILL_STORE", f"file://{finished.parents[1]}/store")
        labels = open_labels(finished / "soft_labels" / "manifest.json", task.dataset.digest)
        found = labels.labels(torch.arange(task.points))
    whole, teacher = sets_of(task), read_network(finished / "teacher" / "member-0")
    assert found.ids is not None and found.tail is not None
    for point in range(task.points):
        assert not whole[point] & set(found.ids[point].tolist())
    mass = found.log_probs.exp().sum(1) + found.tail.exp()
    torch.testing.assert_close(mass, torch.ones(task.points), atol=5e-3, rtol=0)
    batch = next(task.scoring_batches(0, task.points, task.points))
    with torch.no_grad():
        logits = teacher(*batch.inputs)
    logits[batch.known] = -torch.inf  # type: ignore[index]
    assert torch.equal(logits.argmax(1), found.ids[:, 0])


def test_evaluation_shows_training_items_and_leaves_out_what_came_before(task: TopN) -> None:
    data, whole = task.dataset, sets_of(task)
    for split, number in (("validation", 1), ("test", 2)):
        users = []
        for batch in task.evaluation_batches(split, 7):  # type: ignore[arg-type]
            assert batch.seen is not None
            for row, user in enumerate(batch.users.tolist()):
                assert set(batch.feed["items"][row, : batch.feed["length"][row]].tolist()) == whole[user]
                before = data.item[(data.user == user) & (data.split < number)]
                assert set(batch.seen[1][batch.seen[0] == row].tolist()) == set(before.tolist())
                # As in the user's soft label.
                assert set(batch.known[1][batch.known[0] == row].tolist()) == whole[user]
                assert batch.targets[row] in data.item[(data.user == user) & (data.split == number)]
            users += batch.users.tolist()
        assert sorted(users) == list(range(data.users))


def test_conjugate_gradients_solve_each_user_s_system() -> None:
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 9, 5, generator=random, dtype=torch.float64)
    rows[2, 3:] = 0
    rows[3] = 0
    prior = torch.eye(5, dtype=torch.float64) * 3
    ridge = torch.rand(6, 1, 1, generator=random, dtype=torch.float64)
    found = user_rows(rows, ridge, prior[None], torch.linalg.inv(prior)[None], 6)
    system = prior + rows.transpose(1, 2) @ rows + ridge * torch.eye(5)
    torch.testing.assert_close(found, torch.linalg.solve(system, rows.sum(1)))


def test_a_factorization_cut_to_half_its_width_is_the_masked_one_and_can_be_trained() -> None:
    torch.manual_seed(0)
    settings = MatrixFactorizationSettings(kind="matrix_factorization", dim=16, steps=4)
    network = new_network(settings, 30, {"item_sets": True})
    inputs = torch.randint(0, 30, (5, 7)), torch.tensor([1, 7, 3, 2, 5])
    network(*inputs).square().sum().backward()
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in network.parameters())
    groups = network.groups
    kept = {groups[0].name: torch.arange(0, 16, 2)}
    smaller = cut(network, groups, kept)
    assert check_mask_equivalence(network, smaller, groups, kept, [inputs]) < 1e-6
    assert smaller.hidden_dim == 8


@pytest.mark.parametrize(("place", "made_from"), [("teacher/member-0", "teacher_member"), ("student", "student")])
def test_neither_padding_nor_order_nor_neighbours_change_an_answer(finished: Path, place: str, made_from: str) -> None:
    network = read_network(finished / place)
    model = onnx.load(finished / "quantized" / f"{made_from}.fp32.onnx")
    random = np.random.default_rng(0)
    sizes = (1, 2, 5, 9, 30)
    chosen = [random.choice(network.outcomes, size, replace=False) for size in sizes]
    alone = np.concatenate(
        [outputs_of(model, [{"items": row[None, ::-1].copy(), "length": np.array([len(row)])}]) for row in chosen]
    )
    row, item = np.repeat(np.arange(len(sizes)), sizes), np.concatenate(chosen)
    items, length = ItemSets.padded(row, item, len(sizes), fill=3)
    together = outputs_of(model, [{"items": items, "length": length}])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5 * np.abs(alone).max())
    with torch.inference_mode():
        expected = network(torch.from_numpy(items), torch.from_numpy(length)).numpy()
    np.testing.assert_allclose(together, expected, rtol=0, atol=1e-5 * np.abs(alone).max())


def test_a_set_keeps_the_newest_of_each_item() -> None:
    found = ItemSets(np.array([0, 0, 0, 0, 2]), np.array([7, 3, 7, 5, 1]), users=3, most=2)
    assert found.sizes.tolist() == [2, 0, 1]
    assert found.feed(np.array([0, 1, 2]))["items"].tolist() == [[7, 5], [0, 0], [1, 0]]


def test_two_models_are_compared_by_what_is_among_the_first_fifty(task: TopN) -> None:
    held_out = task.beyond(None)
    assert len(held_out.users) == USERS and held_out.worth(49) == 1.0
    assert all(request["k"] >= 50 for request in held_out.requests())
    assert len(task.population().items) == task.outcomes


def test_what_does_not_fit_is_told(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    for name, table in sets().items():
        table.write_csv(tmp_path / "sets" / f"{name}.csv")
    (tmp_path / "sets" / "test.csv").unlink()
    changed = json.loads(json.dumps(SCENARIO))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"scenarios": {"tiny": changed}}))
    with pytest.raises(DataError, match=r"sets/test\.csv is missing"):
        ingest.work(Workspace("tiny", tmp_path))
    changed["source"] = {"kind": "citeulike", "path": "components/data/catalogue/citeulike.yaml", "as_of": "2020-01-01"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"scenarios": {"tiny": changed}}))
    with pytest.raises(SettingsError, match="leave out as_of and window"):
        ingest.work(Workspace("tiny", tmp_path))
    changed["teacher"]["network"] = {"kind": "two_tower"}
    root = finished.parents[1]
    (root / "other.yaml").write_text("")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"scenarios": {"tiny": changed}}))
    (tmp_path / "artifacts").symlink_to(root / "artifacts")
    with pytest.raises(SettingsError, match="trains a matrix_factorization, not a two_tower"):
        train_teacher.work(Workspace("tiny", tmp_path))
