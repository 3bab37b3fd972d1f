"""Rows with a label: from a source to a package that tells probabilities, by the real stages with tiny settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from scipy.special import expit
from sklearn.metrics import roc_auc_score
from starlette.testclient import TestClient

from components.data.features import Features
from components.data.labelled import LabelledDataset, read_labelled_dataset
from components.data.preparing_labelled import prepare_labelled
from components.errors import DataError, IntegrityError, SettingsError
from components.evaluation.drift import drift_between
from components.networks.building import new_network
from components.serving.holdout import score
from components.serving.http_app import service_app
from components.serving.limits import Limits
from components.serving.live_model import LiveModel
from components.serving.metrics import Metrics
from components.serving.predictor import Predictor
from components.serving.served_model import ServedModel
from components.settings.base import validated
from components.settings.labelled_prepare import (
    HashedFeature,
    LabelledPrepareSettings,
    NumericFeature,
    VocabularyFeature,
)
from components.settings.network import CrossNetworkSettings
from components.settings.scenario import Params
from components.stages import ingest, prepare, train_teacher
from components.stages.workspace import Workspace
from components.storage.atomic import read_json, write_json
from components.storage.checkpoints import ARCHITECTURE_FILE
from components.tasks.building import open_task, task_of
from components.tasks.probability_of_yes import area_by_group, influences, probability_figures
from components.tasks.telling import Telling
from tests.unit.tasks.whole_runs import run

OPTIMIZATION = {"max_epochs": 8, "patience": 8, "batch_size": 64, "learning_rate": 0.02, "average_decay": 0.9}
NETWORK = {
    "kind": "cross_network",
    "dim": 8,
    "cross_ranks": [8],
    "hidden": [16],
    "attention_hidden": 8,
    "heads": 2,
    "dropout": 0.0,
}
SCENARIO: dict[str, Any] = {
    "task": "click",
    "seed": 0,
    "source": {"kind": "synthetic-clicks", "path": "x"},
    "prepare": {
        "kind": "labelled",
        "features": {
            "user": {"kind": "vocabulary"},
            "item": {"kind": "vocabulary"},
            "kinds": {"kind": "vocabulary", "separator": "|", "most": 2},
            "age": {"kind": "numeric"},
        },
        "of_item": ["kinds"],
        "privileged": ["user"],
        "history": {"window": 12},
    },
    "teacher": {"network": {**NETWORK, "max_length": 12, "privileged": True}, "optimization": OPTIMIZATION},
    "student": {
        "network": {
            "kind": "cross_network",
            "dim": 4,
            "cross_ranks": [4],
            "hidden": [16],
            "attention_hidden": 16,
            "heads": 1,
            "max_length": 8,
            "dropout": 0.0,
        },
        "optimization": OPTIMIZATION,
    },
    "trainer": {"accelerator": "cpu"},
    "soft_labels": {"codec": "logit", "calibrate": True},
    "distillation": {
        "losses": [
            {"kind": "binary_cross_entropy", "weight": 0.2},
            {"kind": "soft_binary_cross_entropy", "weight": 0.8},
            {"kind": "logit_squared_error", "weight": 0.1, "head": "auxiliary"},
        ]
    },
    "pruning": {
        "importance": "taylor",
        "ffn_ratio": 0.5,
        "reconstruction": True,
        "soft_labels_of": "student",
        "optimization": {**OPTIMIZATION, "max_epochs": 1},
    },
    "quantization": {
        "variants": ["fp32", "int8_table8", "int4_table4", "kmeans8_table8"],
        "calibration_histories": 64,
        "table_block": 16,
    },
    "evaluation": {"bootstrap_samples": 100, "latency_requests": 10, "throughput_batches": 2},
    "budget": {},
    "gate": {"min_retention": 0.5, "figures": {"calibration": {"min": 0.5, "max": 2.0}}},
}
LOG: dict[str, Any] = {
    **SCENARIO,
    "source": {
        "kind": "labelled-table",
        "path": "log.csv",
        "columns": {"user": "who", "item": "what", "timestamp": "at", "label": "bought"},
        "features": ["price", "tags"],
        "max_rejected_share": 0.1,
    },
    "prepare": {
        "kind": "labelled",
        "features": {
            "item": {"kind": "vocabulary"},
            "tags": {"kind": "vocabulary", "separator": "|", "most": 2},
            "price": {"kind": "numeric"},
        },
        "history": {"window": 3},
    },
}


def workspace(root: Path, scenario: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Workspace:
    (root / "params.yaml").write_text(yaml.safe_dump({"scenarios": {"tiny": scenario}}))
    monkeypatch.chdir(root)
    return Workspace("tiny", root)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which every stage has run. Read only."""
    return run(tmp_path_factory.mktemp("clicks"), "tiny", SCENARIO)


@pytest.fixture(scope="module")
def dataset(finished: Path) -> LabelledDataset:
    return read_labelled_dataset(finished / "dataset")


def log_of(users: int = 12, rows: int = 12) -> pl.DataFrame:
    """A log in which every third row is bought."""
    count = users * rows
    return pl.DataFrame(
        {
            "who": [f"u{number // rows}" for number in range(count)],
            "what": [f"i{number % 5}" for number in range(count)],
            "at": [1_700_000_000 + 60 * number for number in range(count)],
            "bought": [str(int((number + number // rows) % 3 == 0)) for number in range(count)],
            "price": [f"{number % 7}.5" for number in range(count)],
            "tags": ["red|new" if number % 2 else "blue" for number in range(count)],
        }
    )


def ingested(root: Path, log: pl.DataFrame, monkeypatch: pytest.MonkeyPatch, **prepare_keys: Any) -> Workspace:
    log.write_csv(root / "log.csv")
    own = workspace(root, {**LOG, "prepare": {**LOG["prepare"], **prepare_keys}}, monkeypatch)
    ingest.work(own)
    return own


def test_a_history_tells_what_no_column_does(finished: Path) -> None:
    contenders = read_json(finished / "report" / "metrics.json")["contenders"]
    teacher, linear = contenders["teacher"], contenders["logistic"]
    assert teacher["auc"] > linear["auc"] + 0.1 and linear["auc"] > 0.5
    assert {"group_auc", "log_loss", "normalised_entropy", "calibration_error", "calibration"} <= teacher.keys()


def test_every_quantized_form_stays_near_the_network(finished: Path) -> None:
    quality = {
        name: figures["auc"]
        for name, figures in read_json(finished / "report" / "metrics.json")["contenders"].items()
        if name.startswith("pruned")
    }
    assert len(quality) == 5
    assert all(value > quality["pruned"] - 0.03 for value in quality.values()), quality


def test_a_package_tells_a_probability_and_what_it_has_not_met(finished: Path) -> None:
    predictor = Predictor(finished / "package")
    plain = predictor.ask({"item": "3", "user": "8", "age": 30, "history": ["7", "11"]})
    assert 0 < plain.probability < 1 and plain.unknown == () and plain.history_used == 2
    strange = predictor.ask({"item": "no such item", "kinds": ["kind 1", "kind 9"], "age": None})
    assert strange.unknown == ("item=no such item", "kinds=kind 9") and 0 < strange.probability < 1
    # What it knows of an item need not be sent.
    assert predictor.ask({"item": "3"}) == predictor.ask({"item": "3", "kinds": "kind 3"})
    assert predictor.replay_golden() == 16


def test_what_came_of_the_history_counts(finished: Path) -> None:
    predictor = Predictor(finished / "package")
    same_kind = ["7", "11", "15", "7"]
    liked = predictor.ask({"item": "3", "history": same_kind}).probability
    disliked = predictor.ask({"item": "3", "history": [{"item": one, "label": 0} for one in same_kind]}).probability
    assert liked > disliked + 0.1


def test_of_a_longer_history_the_newest_events_count(finished: Path) -> None:
    predictor = Predictor(finished / "package")
    history = [str(number % 16) for number in range(40)]
    whole = predictor.ask({"item": "3", "history": history})
    assert whole.history_used == 8
    assert whole == predictor.ask({"item": "3", "history": history[-8:]})


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"item": "3", "agee": 30}, "reads no column 'agee'; the nearest known one is 'age'"),
        ({"item": "3", "age": "old"}, "'age' is a number, and 'old' is none"),
    ],
)
def test_a_column_that_cannot_be_read_is_refused(finished: Path, request_: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Predictor(finished / "package").ask(request_)


def test_the_service_takes_a_row(finished: Path) -> None:
    live = LiveModel(Metrics())
    live.swap(ServedModel(finished / "package", live.threads))
    client = TestClient(service_app(live, Limits()))
    row = {"item": "3", "user": "8", "age": 30.5, "history": ["7", {"item": "11", "label": 0}]}
    answer = client.post("/predict", json=row).json()
    assert answer["version"] == "tiny"
    assert answer["probability"] == pytest.approx(Predictor(finished / "package").ask(row).probability, abs=1e-6)
    batch = client.post("/predict/batch", json={"requests": [row, {"item": "4"}]}).json()
    assert [one["history_used"] for one in batch["answers"]] == [2, 0]
    for body in ({}, {"item": 3}, {"item": "3", "age": {}}, {"item": "3", "history": [{"item": "4", "label": 2}]}):
        assert client.post("/predict", json=body).status_code == 422
    unknown = client.post("/predict/batch", json={"requests": [row, {"item": "3", "colour": "red"}]})
    assert unknown.status_code == 422 and "no column 'colour'" in unknown.json()["reason"]


def test_a_row_has_the_history_that_it_had(dataset: LabelledDataset, finished: Path) -> None:
    task = open_task("click", finished / "dataset", 5)
    row = dataset.rows("test")[3]
    (batch,) = (one for number, one in enumerate(task.evaluation_batches("test", 1)) if number == 3)
    own = np.flatnonzero((dataset.user == dataset.user[row]) & (dataset.timestamp < dataset.timestamp[row]))[::-1][:5]
    assert batch.feed["history"][0].tolist() == dataset.categories[own, 0].tolist()
    assert batch.feed["happened"][0].tolist() == dataset.label[own].tolist()


def test_events_of_the_very_same_time_are_in_no_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of().with_columns(at=pl.int_range(pl.len()) // 4 * 60 + 1_700_000_000)
    own = ingested(tmp_path, log, monkeypatch)
    prepare.work(own)
    task = open_task("click", own.artifacts / "dataset", 3)
    lengths = [(batch.inputs[2] > 0).sum(1).tolist() for batch in task.scoring_batches(0, task.points, 100)]
    assert lengths[0][:10] == [0, 0, 0, 0, 3, 3, 3, 3, 3, 3]


def test_a_request_is_read_as_its_row_was(dataset: LabelledDataset, finished: Path) -> None:
    layout = dataset.record["features"]
    features = Features(layout, dataset.vocabularies)
    row = int(dataset.rows("train")[5])
    ids = dataset.catalogue["id"].to_list()
    users = pl.read_parquet(finished / "dataset" / "users.parquet")["id"].to_list()
    age = dataset.numbers[row, 0]
    request = {"item": ids[dataset.item[row]], "user": users[dataset.user[row]], "age": None if np.isnan(age) else age}
    answering = Predictor(finished / "package").answering
    parsed = answering.parse(answering.question(request))
    known = dataset.categories[row].tolist()
    assert known[1] > 0 and parsed.categories.tolist() == [known[0], 0, *known[2:]], "the user is privileged"
    assert np.array_equal(parsed.numbers, dataset.numbers[row], equal_nan=True)
    assert features.single == ["item", "user"]


def test_features_keep_their_columns_whatever_they_are_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON has them by name, the data in the order of the settings, items first."""
    log = log_of().with_columns(brand=pl.lit("b"), age=pl.int_range(pl.len()) % 9, hues=pl.lit("x|y|z"))
    log.write_csv(tmp_path / "log.csv")
    source = {**LOG["source"], "features": ["price", "tags", "brand", "age", "hues"]}
    own = workspace(tmp_path, {**LOG, "source": source}, monkeypatch)
    ingest.work(own)
    kinds = {
        "user": HashedFeature(kind="hashed", buckets=7),
        "brand": VocabularyFeature(kind="vocabulary"),
        "item": VocabularyFeature(kind="vocabulary"),
        "tags": VocabularyFeature(kind="vocabulary", separator="|", most=2),
        "hues": VocabularyFeature(kind="vocabulary", separator="|", most=3),
        "price": NumericFeature(kind="numeric"),
        "age": NumericFeature(kind="numeric"),
    }
    settings = LabelledPrepareSettings(kind="labelled", features=kinds, privileged=("user",))
    prepare_labelled(own.artifacts, own.artifacts / "dataset", settings)
    task = open_task("click", own.artifacts / "dataset", 3)
    dataset = task.dataset
    assert isinstance(dataset, LabelledDataset)
    assert list(dataset.record["features"]["single"]) == ["item", "brand", "user"]
    write_json(tmp_path / "signature.json", {**task.write_package_files(tmp_path), "max_length": 3})
    answering = Telling(lambda name: (tmp_path / name).read_bytes(), read_json(tmp_path / "signature.json"))
    row = int(dataset.rows("train")[1])
    request = {"item": "i1", "brand": "b", "tags": "red|new", "hues": "x|y|z", "price": 1.5, "age": 1}
    parsed = answering.parse(answering.question(request))
    known = dataset.categories[row].tolist()
    assert parsed.categories.tolist() == [*known[:2], 0, *known[3:]], "the user is privileged"
    assert parsed.numbers.tolist() == dataset.numbers[row].tolist() == [1.5, 1.0]
    network = new_network(CrossNetworkSettings(kind="cross_network"), 1, task.sizes)
    assert network.record()["mean"] == pytest.approx(np.nanmean(dataset.numbers[dataset.learned], axis=0))
    assert network.record()["bags"] == [2, 3]


def test_the_last_rows_of_each_user_are_the_test(dataset: LabelledDataset) -> None:
    table = pl.DataFrame({"user": dataset.user, "split": dataset.split})
    per_user = table.group_by("user", maintain_order=True).agg(pl.col("split"))["split"]
    assert all(splits.to_list() == [0] * 24 + [1] * 3 + [2] * 3 for splits in per_user)


def test_bad_rows_are_put_aside_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of().with_columns(
        bought=pl.when(pl.int_range(pl.len()) == 4)
        .then(None)
        .when(pl.int_range(pl.len()) == 7)
        .then(pl.lit("maybe"))
        .otherwise("bought"),
        what=pl.when(pl.int_range(pl.len()) == 9).then(pl.lit("")).otherwise("what"),
    )
    own = ingested(tmp_path, log, monkeypatch)
    rejected = pl.read_parquet(own.artifacts / "rejected.parquet").sort("row")
    assert rejected.select("row", "reason").rows() == [
        (5, "label is missing"),
        (8, "label is no number"),
        (10, "null item"),
    ]


def test_missing_values_are_neither_zero_nor_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of().with_columns(
        price=pl.when(pl.int_range(pl.len()) == 0).then(None).otherwise("price"),
        tags=pl.when(pl.int_range(pl.len()) == 0).then(None).otherwise("tags"),
    )
    own = ingested(tmp_path, log, monkeypatch)
    prepare.work(own)
    found = read_labelled_dataset(own.artifacts / "dataset")
    assert np.isnan(found.numbers).sum() == 1 and np.isnan(found.numbers[0, 0])
    tags = found.record["features"]["bags"]["tags"]
    assert found.categories[0, 1:].tolist() == [tags["first"], 0]


@pytest.mark.parametrize(
    ("change", "keys", "reason"),
    [
        ({"bought": pl.lit("1")}, {}, "the training part has .* all with a yes"),
        ({"price": pl.lit("cheap")}, {}, "'price' is numeric, and 144 of 144 rows hold no number in it, e.g. row 1"),
        ({}, {"features": {"item": {"kind": "vocabulary"}, "tag": {"kind": "vocabulary"}}}, "nearest .* 'tags'"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], keys: dict[str, Any], reason: str
) -> None:
    own = ingested(tmp_path, log_of().with_columns(**change), monkeypatch, **keys)
    with pytest.raises(DataError, match=reason):
        prepare.work(own)
    assert not (own.artifacts / "dataset").exists()


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"features": {"item": {"kind": "numeric"}}}, "features.item must be there, of one value"),
        ({"of_item": ["colour"]}, "of_item names 'colour'"),
        ({"privileged": ["kinds"]}, "privileged names 'kinds'"),
        ({"privileged": ["usr"]}, "privileged names 'usr'"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(keys: dict[str, Any], reason: str) -> None:
    scenario = {**SCENARIO, "prepare": {**SCENARIO["prepare"], **keys}}
    with pytest.raises(SettingsError, match=reason):
        validated(Params, {"scenarios": {"tiny": scenario}}, "")


def test_with_a_share_of_the_negatives_probabilities_stay_those_of_the_whole_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = {
        **SCENARIO,
        "source": {"kind": "synthetic-clicks", "path": "x"},
        "prepare": {**SCENARIO["prepare"], "negatives_kept": 0.25},
    }
    own = workspace(tmp_path, scenario, monkeypatch)
    monkeypatch.setenv("RECSTILL_THREADS", "1")
    for stage in (ingest, prepare, train_teacher):
        stage.work(own)
    task = open_task("click", own.artifacts / "dataset", 12)
    kept = task.dataset.label[task.dataset.learned].mean()
    share = task.dataset.record["share_of_yes"]["train"]
    assert kept > share + 0.2 and task.log_odds_shift == pytest.approx(np.log(4))
    from components.networks.ensemble import read_teacher

    teacher = read_teacher(own.artifacts / "teacher")
    figures = task.judge(lambda batch: teacher(*batch.inputs), task.evaluation_batches("test", 256)).figures
    assert 0.85 < figures["calibration"] < 1.15
    assert (
        0.85
        < task.judge(
            task.baselines(None)["logistic"].scorer,
            task.evaluation_batches("test", 256),  # type: ignore[arg-type]
        ).figures["calibration"]
        < 1.15
    )


def test_a_damaged_data_set_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ingested(tmp_path, log_of(), monkeypatch)
    prepare.work(own)
    path = own.artifacts / "dataset" / "train.parquet"
    table = pl.read_parquet(path)
    table.with_columns(label=1 - pl.col("label")).write_parquet(path)
    with pytest.raises(IntegrityError, match="is not the data set"):
        read_labelled_dataset(own.artifacts / "dataset")


def test_figures_of_probabilities() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=(400, 1)).round(1)
    targets = (random.random(400) < expit(scores[:, 0])).astype(np.int64)
    users = random.integers(20, size=400)
    figures = probability_figures(scores, targets, users)
    assert figures["auc"] == pytest.approx(roc_auc_score(targets, scores[:, 0]))
    areas, weights = [], []
    for user in range(20):
        own = users == user
        if 0 < targets[own].sum() < own.sum():
            areas.append(roc_auc_score(targets[own], scores[own, 0]))
            weights.append(own.sum())
    assert figures["group_auc"] == pytest.approx(np.average(areas, weights=weights))
    assert figures["calibration"] == pytest.approx(expit(scores).mean() / targets.mean())
    assert 0.5 < figures["normalised_entropy"] < 1.1
    assert np.isnan(area_by_group(scores[:2, 0], np.array([1, 0]), np.array([0, 1])))


def test_the_influences_of_rows_are_what_resampling_needs() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=2000).round(2)
    targets = (random.random(2000) < expit(scores)).astype(np.int64)
    values = influences(scores, targets)
    assert values.mean() == pytest.approx(roc_auc_score(targets, scores))
    drawn = [random.integers(2000, size=2000) for _ in range(50)]
    exact = np.array([roc_auc_score(targets[rows], scores[rows]) for rows in drawn])
    linear = np.array([values[rows].mean() for rows in drawn])
    assert np.abs(exact - linear).max() < 0.003 < exact.std() * 3
    assert np.corrcoef(exact, linear)[0, 1] > 0.99


def test_a_later_model_is_held_against_an_earlier_one_on_rows_that_neither_has_learned(
    finished: Path, dataset: LabelledDataset
) -> None:
    task = open_task("click", finished / "dataset")
    held_out = task.beyond(None)
    found = score(finished / "package", held_out)
    shipped = read_json(finished / "report" / "choice.json")["figures"]
    # Asked in the words of the source and with whole histories, the package tells what its graph told of the rows.
    assert found.values.mean() == pytest.approx(shipped["auc"], abs=1e-4) and found.cold == 0
    assert held_out.dropped == 0 and held_out.span is not None and len(found.values) == task.held_out("test")
    # Every second test row was a training row of the earlier model.
    taught = dataset.rows("test")[::2]
    split = dataset.split.copy()
    split[taught] = 0
    left = task.beyond(replace(dataset, split=split))
    assert left.dropped == len(taught) and np.array_equal(left.rows, dataset.rows("test")[1::2])
    assert np.array_equal(left.users, dataset.user[left.rows])
    assert drift_between(task.population(), task.population()).psi == 0
    same = replace(dataset, label=np.ones_like(dataset.label))
    assert len(task_of("click", same).beyond(None).users) == 0, "of rows with a yes alone there is no area"


def test_a_model_is_asked_with_the_columns_that_it_reads(finished: Path, dataset: LabelledDataset) -> None:
    signature = read_json(finished / "package" / "signature.json")
    fewer = {**signature["features"], "bags": {}}
    held_out = open_task("click", finished / "dataset").beyond(None)
    first, other = (
        next(iter(held_out.for_package({**signature, "features": features}).requests()))
        for features in (signature["features"], fewer)
    )
    assert first.keys() - other.keys() == {"kinds"} and {"age", "item", "user", "history"} <= other.keys()
    row = dataset.rows("test")[0]
    # The newest twelve, and further ones that came to a yes for a model that reads these alone.
    labels = [event["label"] for event in first["history"]]
    assert labels[-12:] == dataset.label[row - 12 : row].tolist() and set(labels[:-12]) <= {1}


def test_what_is_privileged_is_learned_by_the_teacher_and_in_no_package(
    finished: Path, dataset: LabelledDataset
) -> None:
    rows = {
        name: read_json(finished / folder / ARCHITECTURE_FILE)["rows"]
        for name, folder in (("teacher", "teacher/member-0"), ("student", "student"), ("baseline", "baseline"))
    }
    values = dataset.vocabularies
    users = len(values.filter(pl.col("feature") == "user"))
    assert users > 0 and rows["teacher"] - rows["student"] == users + 2 and rows["baseline"] == rows["student"]
    packaged = pl.read_parquet(finished / "package" / "values.parquet")
    assert packaged.equals(values.filter(pl.col("feature") != "user"))
    asked = {"item": "3", "history": ["7", "11"]}
    predictor = Predictor(finished / "package")
    assert predictor.ask({**asked, "user": "8"}) == predictor.ask(asked)


def test_nothing_but_the_layout_decides_what_a_network_reads(finished: Path) -> None:
    signature = json.loads((finished / "package" / "signature.json").read_text())
    assert [one["name"] for one in signature["inputs"]] == ["categories", "numbers", "history", "happened"]
    assert signature["max_length"] == 8
