"""Two packages bound into one: who answers what, what is refused, and that neither has learned from what is tested."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from starlette.testclient import TestClient

from components.compression.export import export_onnx, model_bytes
from components.errors import IntegrityError, SettingsError
from components.networks.building import new_network, write_network
from components.networks.ensemble import teacher_digest
from components.serving.http_app import service_app
from components.serving.limits import Limits
from components.serving.live_model import LiveModel
from components.serving.metrics import Metrics
from components.serving.opening import open_package
from components.serving.packaging import PackageContent, write_package
from components.serving.predictor import Predictor
from components.serving.served_model import ServedModel
from components.serving.two_stage import TwoStage, TwoStagePredictor
from components.settings.network import CausalTransformerSettings, CrossNetworkSettings
from components.stages import bind, ingest, prepare
from components.stages.workspace import Workspace
from components.storage.atomic import read_json, write_json
from components.storage.digests import file_digest
from components.tasks.building import open_task

SOURCE = {"kind": "synthetic-feed", "path": "-", "users": 50, "items": 40, "impressions_per_user": 20}
LENGTH, CANDIDATES = 6, 12
FEATURES = {"item": {"kind": "vocabulary"}, "topic": {"kind": "vocabulary"}}
SCENARIOS: dict[str, Any] = {
    "found": {
        "task": "next_item",
        "source": SOURCE,
        "prepare": {"split": "temporal", "validation_share": 0.2, "test_share": 0.2, "min_user_events": 3},
    },
    "told": {
        "task": "click",
        "source": SOURCE,
        "prepare": {
            "kind": "labelled",
            "features": FEATURES,
            "of_item": ["topic"],
            "history": {"window": LENGTH, "events": "positive"},
            "split": "temporal",
            "validation_share": 0.2,
            "test_share": 0.2,
        },
    },
}
NETWORKS = {
    "found": CausalTransformerSettings(dim=8, blocks=1, ffn_dim=16, heads=2, max_length=LENGTH),
    "told": CrossNetworkSettings(
        kind="cross_network", dim=4, cross_ranks=(4,), hidden=(8,), heads=1, max_length=LENGTH
    ),
}
PAIR = {"retrieval": "found", "ranking": "told", "candidates": CANDIDATES, "weights": [0.5, 2.0], "requests": 5}
COSTS = dict.fromkeys(("bytes", "p50_ms", "parameters", "retention", "retention_low", "retention_high"), 1)
LINEAGE = dict.fromkeys(
    ("source", "dataset", "teacher", "student", "pruned", "soft_labels", "variant", "params"), "f" * 64
)


def make(root: Path, name: str) -> None:
    """A scenario's artifacts by the real code, with networks that have learned nothing."""
    own = Workspace(name, root)
    ingest.work(own)
    prepare.work(own)
    task = open_task(SCENARIOS[name]["task"], own.artifacts / "dataset", LENGTH)
    for seed, folder in enumerate(("teacher/member-0", "student")):
        torch.manual_seed(seed)
        network = new_network(NETWORKS[name], task.outcomes, task.sizes)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(6)
        (own.artifacts / folder).mkdir(parents=True)
        write_network(own.artifacts / folder, network.eval())
    teacher = own.artifacts / "teacher"
    write_json(teacher / "teacher.json", {"members": 1})
    write_json(teacher / "teacher.json", {"members": 1, "digest": teacher_digest(teacher)})
    model = own.artifacts / "model.onnx"
    model.write_bytes(model_bytes(export_onnx(network)))
    figures = dict.fromkeys((measure.key for measure in task.measures), 1.0) | COSTS
    choice = {"chosen": "student", "reason": "the only one", "made_from": "student", "variant": {"weight_bits": 32}}
    content = PackageContent(
        name=name,
        model=model,
        choice=choice | {"sha256": file_digest(model), "max_length": LENGTH, "figures": figures},
        metrics={"contenders": {"teacher": figures}, "test_targets": 1, "test_users": 1},
        source=read_json(own.artifacts / "source.json"),
        lineage=LINEAGE | {"commit": "1" * 40, "version": "0.1.0"},
        dirty=False,
        params={},
    )
    (own.artifacts / "package").mkdir()
    write_package(own.artifacts / "package", content, task)


def write_params(root: Path, scenarios: dict[str, Any] = SCENARIOS, **pair: Any) -> None:
    document = {"scenarios": scenarios, "two_stage": {"both": PAIR | pair}}
    (root / "params.yaml").write_text(yaml.safe_dump(document))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout in which two scenarios and the pair of them have run. Read only."""
    root = tmp_path_factory.mktemp("pair")
    write_params(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("RECSTILL_THREADS", "1")
        for name in SCENARIOS:
            make(root, name)
        bind.work(Workspace("both", root))
        yield root


@pytest.fixture(scope="module")
def package(checkout: Path) -> Path:
    return checkout / "artifacts" / "both" / "package"


@pytest.fixture(scope="module")
def histories(checkout: Path) -> list[list[str]]:
    items = Predictor(checkout / "artifacts" / "found" / "package")
    golden = read_json(checkout / "artifacts" / "found" / "package" / "golden.json")
    assert items.answering.endpoint == "recommend"
    return [request["history"] for request in golden["requests"]]


def test_the_candidates_are_ordered_by_both_scores(checkout: Path, package: Path, histories: list[list[str]]) -> None:
    both = open_package(package)
    assert isinstance(both, TwoStagePredictor)
    retrieval, ranking = (Predictor(checkout / "artifacts" / name / "package") for name in SCENARIOS)
    for history in histories[:6]:
        candidates = {item.id: item.score for item in retrieval.recommend(history, CANDIDATES).items}
        worth = {}
        for item, score in candidates.items():
            probability = ranking.ask({"item": item, "history": history}).probability
            worth[item] = score + both.weight * np.log(probability / (1 - probability))
        expected = sorted(worth, key=lambda item: -worth[item])[:5]
        answer = both.recommend(history, 5)
        assert [item.id for item in answer.items] == expected
        assert [item.score for item in answer.items] == pytest.approx([worth[item] for item in expected], abs=1e-4)


def test_the_order_is_not_that_of_the_retrieval(package: Path, checkout: Path, histories: list[list[str]]) -> None:
    retrieval, both = Predictor(checkout / "artifacts" / "found" / "package"), open_package(package)
    answers = [(retrieval.recommend(history, 8), both.recommend(history, 8)) for history in histories]
    assert any([item.id for item in one.items] != [item.id for item in other.items] for one, other in answers)


def test_more_than_the_candidates_can_be_asked_for_and_nothing_excluded_comes(
    package: Path, histories: list[list[str]]
) -> None:
    both = open_package(package)
    answer = both.recommend(histories[0], 30, exclude=[both.recommend(histories[0], 1).items[0].id])
    ids = [item.id for item in answer.items]
    assert len(ids) == len(set(ids)) > CANDIDATES
    assert not set(ids) & {*histories[0], both.recommend(histories[0], 1).items[0].id}


def test_without_a_known_item_the_most_popular_are_the_answer(package: Path, checkout: Path) -> None:
    retrieval, both = Predictor(checkout / "artifacts" / "found" / "package"), open_package(package)
    assert both.recommend(["nobody knows"], 4) == retrieval.recommend(["nobody knows"], 4)
    assert both.recommend([], 4).from_popularity


def test_the_service_answers_as_the_package_does(package: Path, histories: list[list[str]]) -> None:
    live = LiveModel(Metrics())
    try:
        live.swap(ServedModel(package, live.threads), source=package)
        client = TestClient(service_app(live, Limits()))
        found = client.post("/recommend", json={"history": histories[1], "k": 3}).json()
        expected = open_package(package).recommend(histories[1], 3)
        assert [one["item"] for one in found["recommendations"]] == [item.id for item in expected.items]
        assert found["version"] == "both"
        assert client.get("/model").json()["golden_requests"] == 16
    finally:
        live.stop()


def test_the_record_names_both_packages_by_digest_and_their_bytes_are_unchanged(checkout: Path, package: Path) -> None:
    record = read_json(package / "package.json")
    for role, name in (("retrieval", "found"), ("ranking", "told")):
        part = checkout / "artifacts" / name / "package"
        assert record["parts"][role] == {"package": file_digest(part / "package.json"), "name": name}
        assert {path.name: path.read_bytes() for path in part.iterdir()} == {
            path.name: path.read_bytes() for path in (package / role).iterdir()
        }
    assert record["two_stage"] == {"candidates": CANDIDATES, "weight": record["two_stage"]["weight"]}
    assert record["two_stage"]["weight"] in PAIR["weights"]
    both = open_package(package)
    assert both.replay_golden() == 16
    golden = read_json(package / "golden.json")["requests"]
    assert all(request["history"] and not both.ask(request).from_popularity for request in golden)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "ranking" / "model.onnx").write_bytes(b"x"), "is not the file"),
        (lambda folder: (folder / "ranking" / "values.parquet").unlink(), "cannot be read"),
        (lambda folder: shutil.rmtree(folder / "retrieval"), "cannot be read"),
        (lambda folder: (folder / "golden.json").write_text("{}"), "is not the file"),
        (lambda folder: (folder / "more").mkdir(), "does not belong"),
        (
            lambda folder: write_json(
                folder / "ranking" / "package.json", read_json(folder / "ranking" / "package.json") | {"name": "other"}
            ),
            "is not the package that this one was made with",
        ),
        (
            lambda folder: write_json(
                folder / "package.json", read_json(folder / "package.json") | {"parts": {"../x": {"package": "0"}}}
            ),
            "is not a folder of the package",
        ),
    ],
    ids=["model", "values of features", "part", "golden", "another folder", "part's record", "path"],
)
def test_whatever_is_not_as_it_was_bound_is_refused(
    package: Path, tmp_path: Path, damage: Callable[[Path], Any], told: str
) -> None:
    folder = Path(shutil.copytree(package, tmp_path / "package"))
    damage(folder)
    with pytest.raises(IntegrityError, match=told):
        open_package(folder)


def test_no_tested_event_is_one_that_either_model_has_learned_from(checkout: Path) -> None:
    retrieval, ranking = (
        open_task(section["task"], checkout / "artifacts" / name / "dataset") for name, section in SCENARIOS.items()
    )
    after = max(task.learned_until("test") for task in (retrieval, ranking))
    for task in (retrieval, ranking):
        learned = task.dataset.timestamp[task.dataset.split < 2]
        assert learned.max() <= after
    held = retrieval.asked("test", after)
    assert len(held.rows) > 20
    assert retrieval.dataset.timestamp[held.rows].min() > after
    metrics = read_json(checkout / "artifacts" / "both" / "report" / "metrics.json")
    assert metrics["test_targets"] == len(held.rows)


def test_the_table_has_quality_and_time_of_every_way(checkout: Path) -> None:
    report = checkout / "artifacts" / "both" / "report"
    contenders = read_json(report / "metrics.json")["contenders"]
    assert set(contenders) == {"retrieval", "ranking_alone", "two_stage", "teacher_retrieval", "teacher"}
    for name, figures in contenders.items():
        assert 0 <= figures["ndcg10"] <= figures["recall"] <= figures["recall_candidates"] <= 1, name
        assert 0 < figures["retrieval_p50_ms"] <= figures["p50_ms"] <= figures["p95_ms"]
        assert (figures["ranking_p50_ms"] is None) == name.endswith("retrieval")
    assert contenders["retrieval"]["recall_candidates"] == contenders["two_stage"]["recall_candidates"]
    assert contenders["two_stage"]["bytes"] == sum(
        read_json(checkout / "artifacts" / name / "package" / "package.json")["model_bytes"] for name in SCENARIOS
    )
    page = (report / "index.html").read_text()
    assert "two stages: ships" in page and "http" not in page


def test_two_sources_are_refused(checkout: Path, tmp_path: Path) -> None:
    shutil.copytree(checkout / "artifacts", tmp_path / "artifacts")
    write_params(tmp_path)
    record = tmp_path / "artifacts" / "told" / "dataset" / "dataset.json"
    write_json(record, read_json(record) | {"source_digest": "0" * 64})
    with pytest.raises(SettingsError, match="'found' and 'told' have learned from different events"):
        bind.work(Workspace("both", tmp_path))


def test_where_people_are_split_one_by_one_only_what_is_later_than_all_is_tested(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(checkout / "artifacts" / "told", tmp_path / "artifacts" / "told")
    scenarios = json.loads(json.dumps(SCENARIOS))
    scenarios["told"]["prepare"]["split"] = "per_user"
    write_params(tmp_path, scenarios)
    prepare.work(Workspace("told", tmp_path))
    retrieval = open_task("next_item", checkout / "artifacts" / "found" / "dataset")
    ranking = open_task("click", tmp_path / "artifacts" / "told" / "dataset")
    after = ranking.learned_until("test")
    assert after > retrieval.learned_until("test")
    assert (retrieval.dataset.timestamp[retrieval.asked("test", after).rows] > after).all()


def test_parts_that_cannot_be_played_are_refused(checkout: Path, tmp_path: Path) -> None:
    write_params(tmp_path, retrieval="told", ranking="found")
    (tmp_path / "artifacts").symlink_to(checkout / "artifacts")
    with pytest.raises(SettingsError, match="a model of the task 'click' cannot take this part in two stages"):
        bind.work(Workspace("both", tmp_path))
    retrieval, ranking = (Predictor(checkout / "artifacts" / name / "package") for name in SCENARIOS)
    with pytest.raises(IntegrityError, match="that is to rank does not tell what an outcome is worth"):
        TwoStage(retrieval, retrieval, 5, 1.0)
    with pytest.raises(IntegrityError, match="that is to retrieve does not answer with outcomes"):
        TwoStage(ranking, ranking, 5, 1.0)
