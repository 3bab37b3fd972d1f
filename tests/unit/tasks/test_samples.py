"""Samples with a label: from a source to a package that predicts, by the real stages with tiny settings."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from starlette.testclient import TestClient

from components.data.ingesting_samples import ingest_samples
from components.data.preparing_samples import prepare_samples
from components.data.samples import RawSamples, read_sample_dataset
from components.errors import DataError, IntegrityError, SettingsError
from components.evaluation.challenger_gate import Contest, Evidence, judge
from components.evaluation.drift import drift_between
from components.provenance.subjects import people_in
from components.serving.holdout import score
from components.serving.http_app import service_app
from components.serving.limits import Limits
from components.serving.live_model import LiveModel
from components.serving.metrics import Metrics
from components.serving.predictor import Predictor
from components.serving.served_model import ServedModel
from components.settings.evaluation import BudgetSettings, EvaluationSettings, GateSettings
from components.settings.retraining import ChallengerGateSettings
from components.settings.sample_prepare import SamplePrepareSettings
from components.settings.sample_source import SyntheticSamplesSource
from components.stages import train_baseline
from components.stages.workspace import Workspace
from components.storage.atomic import read_json, write_json
from components.tasks.building import open_task
from components.tasks.probabilities import area_under_curve, calibration_error, log_probabilities
from flows.cli import main
from tests.stage_modules import ROOT
from tests.unit.tasks.whole_runs import run

OPTIMIZATION = {"max_epochs": 8, "patience": 8, "batch_size": 64, "learning_rate": 0.01, "average_decay": 0.9}
SCENARIO: dict[str, Any] = {
    "task": "binary",
    "seed": 0,
    "source": {"kind": "synthetic-samples", "path": "x", "samples": 400},
    "prepare": {"kind": "samples"},
    "teacher": {"network": {"kind": "perceptron", "hidden": [64]}, "optimization": OPTIMIZATION, "members": 2},
    "student": {"network": {"kind": "perceptron", "hidden": [16]}, "optimization": OPTIMIZATION},
    "trainer": {"accelerator": "cpu"},
    "soft_labels": {"codec": "logit"},
    "distillation": {
        "losses": [
            {"kind": "binary_cross_entropy", "weight": 0.2},
            {"kind": "soft_binary_cross_entropy", "weight": 0.8},
        ]
    },
    "pruning": {"importance": "taylor", "ffn_ratio": 0.5, "optimization": {**OPTIMIZATION, "max_epochs": 2}},
    "quantization": {"variants": ["fp32", "int8_static"], "calibration_histories": 64},
    "evaluation": {"bootstrap_samples": 100, "latency_requests": 10, "throughput_batches": 2},
    "budget": {},
    "gate": {"min_retention": 0.5},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which every stage has run. Read only."""
    root = tmp_path_factory.mktemp("samples")
    return run(root, "binary", SCENARIO)


def test_the_report_compares_everything_by_the_measures_of_the_task(finished: Path) -> None:
    metrics = read_json(finished / "report" / "metrics.json")
    assert [measure["key"] for measure in metrics["measures"]] == ["accuracy", "log_loss", "calibration_error", "auc"]
    contenders = metrics["contenders"]
    assert metrics["untrained"] == ["commonest", "linear"]
    assert contenders["teacher"]["accuracy"] > contenders["commonest"]["accuracy"] + 0.05
    assert contenders["teacher"]["auc"] > 0.7 and contenders["teacher_member"]["parameters"] > 0
    assert contenders["pruned"]["parameters"] < contenders["student"]["parameters"]
    assert "accuracy" in (finished / "report" / "index.html").read_text()


def test_a_package_predicts_and_serves(finished: Path) -> None:
    dataset = read_sample_dataset(finished / "dataset")
    values = [dataset.values[row].tolist() for row in dataset.rows("test")[:3]]
    predictor = Predictor(finished / "package")
    answers = [predictor.ask({"values": sample}) for sample in values]
    assert all(sum(answer.probabilities) == pytest.approx(1) for answer in answers)
    assert {*answers[0].labels} == {"0", "1"}
    live = LiveModel(Metrics())
    live.swap(ServedModel(finished / "package", live.threads))
    client = TestClient(service_app(live, Limits()))
    told = client.post("/predict", json={"values": values[0]}).json()
    assert [one["label"] for one in told["labels"]] == list(answers[0].labels) and told["version"] == "binary"
    batch = client.post("/predict/batch", json={"requests": [{"values": sample} for sample in values]}).json()
    assert len(batch["answers"]) == 3
    short = client.post("/predict", json={"values": [1.0]})
    assert short.status_code == 422 and "1 values, and the model reads 10" in short.json()["reason"]
    short = client.post("/predict/batch", json={"requests": [{"values": values[0]}, {"values": [1.0, 2.0]}]})
    assert short.status_code == 422 and short.json()["reason"].startswith("requests.1: the sample has 2 values")
    assert (
        client.post("/predict", content='{"values": [NaN]}', headers={"content-type": "application/json"}).status_code
        == 422
    )
    assert client.post("/recommend", json={}).status_code == 404
    live.stop()


def test_the_tutorial_runs_as_it_stands(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(finished.parents[1])
    monkeypatch.setenv("RECSTILL_STORE", f"file://{finished.parents[1]}/store")
    page = (ROOT / "docs" / "tutorial.md").read_text()
    commands, blocks = (
        re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL) for language in ("sh", "python")
    )
    names: dict[str, object] = {}
    for number, block in enumerate(blocks, start=1):
        exec(compile(block, f"block {number} of docs/tutorial.md", "exec"), names)
    told = capsys.readouterr().out
    assert "teacher's probability of 1" in told and "pruned.int8_static.onnx" in told
    # The first command of the page has been run, stage by stage; the second one asks its package.
    run, predict = "".join(commands).splitlines()
    assert run == "recstill run binary"
    (request,) = re.findall(r"--request '(.*)'", predict)
    monkeypatch.setattr("sys.argv", ["recstill", "predict", "artifacts/binary/package", "--request", request])
    assert predict == f"recstill predict artifacts/binary/package --request '{request}'"
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code and "probability" in capsys.readouterr().out


def test_no_test_sample_is_among_those_that_training_reads(finished: Path) -> None:
    task = open_task("binary", finished / "dataset")
    seen = {batch.points.tolist()[0] for batch in task.scoring_batches(0, task.points, 1)}
    assert seen == set(range(task.points)) and task.points == len(task.dataset.rows("train"))
    rows = {
        split: {sample.tobytes() for sample in task.dataset.values[task.dataset.rows(split)]}
        for split in ("train", "validation", "test")
    }
    assert not rows["test"] & (rows["train"] | rows["validation"])


def test_a_later_model_is_held_against_an_earlier_one_on_what_neither_has_learned(
    finished: Path, tmp_path: Path
) -> None:
    task = open_task("binary", finished / "dataset")
    held_out = task.beyond(None)
    found = score(finished / "package", held_out)
    shipped = read_json(finished / "report" / "choice.json")["figures"]
    assert found.values.mean() == pytest.approx(shipped["accuracy"], abs=1e-6) and found.cold == 0
    assert len(found.values) == task.held_out("test") and held_out.span is None
    # Half of the test samples were training samples of the earlier model.
    earlier = read_sample_dataset(finished / "dataset")
    taught = earlier.rows("test")[::2]
    split = earlier.split.copy()
    split[taught] = 0
    left = task.beyond(replace(earlier, split=split))
    assert left.dropped == len(taught) and set(left.users) == {*earlier.rows("test")} - {*taught}
    fewer = score(finished / "package", left)
    assert np.array_equal(fewer.values, found.values[1::2])
    assert drift_between(task.population(), task.population()).psi == 0
    verdict = judge(
        Evidence(
            read_json(finished / "dataset" / "dataset.json"),
            read_json(finished / "source.json"),
            read_json(finished / "report" / "metrics.json"),
            read_json(finished / "report" / "choice.json"),
            BudgetSettings(),
            GateSettings(min_retention=0.5),
        ),
        Contest(left.users, fewer.values, fewer.values, 0, 0, left.dropped, left.span, 1),
        ChallengerGateSettings(min_targets=10),
        EvaluationSettings(bootstrap_samples=100),
        champion=1,
    )
    assert verdict["passed"], verdict["reasons"]
    assert verdict["challenger"]["accuracy"] == pytest.approx(fewer.values.mean(), abs=1e-6)


def raw(**changes: Any) -> RawSamples:
    values = np.random.default_rng(0).standard_normal((40, 3))
    whole = RawSamples(values, pl.Series(["no", "a/b ç"] * 20), (3,), (), None, "mine")
    return whole._replace(**changes)


def ingested(folder: Path, samples: RawSamples, share: float = 1.0) -> pl.DataFrame:
    settings = SyntheticSamplesSource(kind="synthetic-samples", path="x", max_rejected_share=share)
    found = ingest_samples(samples, settings)
    for name, table in (("events", found.events), ("items", found.items)):
        table.write_parquet(folder / f"{name}.parquet")
    write_json(folder / "source.json", found.record)
    return found.rejected


def test_bad_samples_are_put_aside_with_row_and_reason(tmp_path: Path) -> None:
    values = raw().values.copy()
    values[3, 1], values[5] = np.nan, values[4]
    labels = pl.Series([None, *raw().labels[1:7], " ", "a\tb", "x" * 201, *raw().labels[10:]])
    values[8] = values[10]  # Of a sample that is bad anyway, the other copy stays.
    rejected = ingested(tmp_path, raw(values=values, labels=labels))
    assert list(rejected.select("row", "reason").iter_rows()) == [
        (1, "label is missing"),
        (4, "a value is missing or not finite"),
        (6, "the same sample again"),
        (8, "label is missing"),
        (9, "label holds a control character"),
        (10, "label is longer than 200 characters"),
    ]
    with pytest.raises(DataError, match="the same sample again"):
        ingested(tmp_path, raw(values=values, labels=labels), share=0.01)


def test_one_label_is_refused_and_odd_names_are_kept(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing to tell apart"):
        ingested(tmp_path, raw(labels=pl.Series(["yes"] * 40)))
    ingested(tmp_path, raw())
    prepare_samples(tmp_path, tmp_path / "dataset", SamplePrepareSettings(kind="samples"))
    assert set(read_sample_dataset(tmp_path / "dataset").catalogue["id"]) == {"no", "a/b ç"}


def test_a_label_that_only_the_test_has_is_never_told_by_what_has_not_seen_it(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = pl.Series(["a", "c"] * 20 + ["a", "b", "c"])
    values = random.standard_normal((43, 4)) + (labels == "c").to_numpy()[:, None] * 5
    is_test = np.arange(43) >= 40
    ingested(tmp_path, RawSamples(values, labels, (2, 2), (), is_test, "mine"))
    prepare_samples(tmp_path, tmp_path / "dataset", SamplePrepareSettings(kind="samples"))
    task = open_task("image", tmp_path / "dataset")
    linear = task.baselines(EvaluationSettings())["linear"].scorer
    judged = task.judge(linear, task.evaluation_batches("test", 8))
    assert judged.values.tolist() == [1, 0, 1] and judged.figures["log_loss"] > 10
    with pytest.raises(DataError, match="with 1 of 3 labels"):
        ingested(tmp_path, RawSamples(values, labels, (2, 2), (), (labels != "a").to_numpy(), "mine"))
        prepare_samples(tmp_path, tmp_path / "other", SamplePrepareSettings(kind="samples"))


def test_a_damaged_set_is_noticed(tmp_path: Path) -> None:
    ingested(tmp_path, raw())
    prepare_samples(tmp_path, tmp_path / "dataset", SamplePrepareSettings(kind="samples"))
    table = pl.read_parquet(tmp_path / "dataset" / "train.parquet")
    table.with_columns(label=1 - pl.col("label")).write_parquet(tmp_path / "dataset" / "train.parquet")
    with pytest.raises(IntegrityError):
        read_sample_dataset(tmp_path / "dataset")


def test_samples_are_of_nobody(tmp_path: Path) -> None:
    ingested(tmp_path, raw())
    assert people_in(tmp_path) == set()


def test_a_network_of_another_task_is_refused(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = json.loads(json.dumps(SCENARIO))
    scenario["student"]["network"] = {"dim": 8}
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "binary").symlink_to(finished)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"scenarios": {"binary": scenario}}))
    with pytest.raises(SettingsError, match="causal transformer is for tasks over histories"):
        train_baseline.work(Workspace("binary", tmp_path))


def test_figures_of_probabilities_are_those_of_their_definitions() -> None:
    scores, targets = np.array([[-1.0], [0.5], [2.0], [0.5]]), np.array([0, 0, 1, 1])
    assert area_under_curve(scores[:, 0], targets) == pytest.approx(3.5 / 4)
    assert np.isnan(area_under_curve(scores[:, 0], np.zeros(4)))
    known = log_probabilities(scores)
    assert np.exp(known[:, 1]) == pytest.approx(1 / (1 + np.exp(-scores[:, 0])))
    certain = log_probabilities(np.array([[30.0, 0.0], [0.0, 30.0]]))
    assert calibration_error(certain, np.array([0, 1])) == pytest.approx(0, abs=1e-9)
    assert calibration_error(certain, np.array([1, 0])) == pytest.approx(1, abs=1e-9)
    with pytest.raises(DataError, match="not a number"):
        log_probabilities(np.array([[np.nan]]))
