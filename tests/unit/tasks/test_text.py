"""Texts with a label: from tables to a package that tells labels, by the real stages with tiny settings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from starlette.testclient import TestClient

from components.compression.export import export_onnx
from components.compression.running import outputs_of
from components.errors import DataError, IntegrityError
from components.networks.building import read_network
from components.serving.http_app import service_app
from components.serving.limits import Limits
from components.serving.live_model import LiveModel
from components.serving.metrics import Metrics
from components.serving.predictor import Predictor
from components.serving.served_model import ServedModel
from components.storage.atomic import read_json
from components.tasks.building import open_task
from components.tasks.classifying import padded_tokens
from components.tasks.probabilities import macro_f1
from tests.unit.tasks.whole_runs import run

OPTIMIZATION = {"max_epochs": 4, "patience": 4, "batch_size": 16, "learning_rate": 0.02, "average_decay": 0.8}
SCENARIO: dict[str, Any] = {
    "task": "text",
    "seed": 0,
    "source": {"kind": "text-table", "path": "texts.csv"},
    "prepare": {"kind": "texts", "vocabulary": 200, "max_tokens": 32},
    "teacher": {
        "network": {
            "kind": "text_encoder",
            "dim": 16,
            "blocks": 1,
            "heads": 2,
            "ffn_dim": 16,
            "encoded": 8,
            "bag_dim": 16,
            "buckets": 64,
            "max_length": 16,
        },
        "optimization": OPTIMIZATION,
    },
    "student": {
        "network": {"kind": "bag_of_ngrams", "dim": 16, "buckets": 64, "max_length": 16},
        "optimization": OPTIMIZATION,
    },
    "trainer": {"accelerator": "cpu"},
    "soft_labels": {"codec": "dense"},
    "distillation": {
        "losses": [
            {"kind": "cross_entropy", "weight": 0.2},
            {"kind": "standardised_divergence", "weight": 0.4},
            {"kind": "correlation", "weight": 0.4},
        ]
    },
    "pruning": {"width_ratio": 0.5, "ffn_ratio": 0, "optimization": {**OPTIMIZATION, "max_epochs": 1}},
    "quantization": {
        "variants": ["fp32", "int8_table4"],
        "table_block": 16,
        "calibration_histories": 16,
        "fine_tuning": {"steps": 3},
    },
    "evaluation": {"bootstrap_samples": 100, "latency_requests": 10, "throughput_batches": 2},
    "budget": {},
    "gate": {"min_retention": 0.5},
}
WORDS = {
    "sport": ["match", "goal", "team", "足球", "比赛"],
    "财经": ["profit", "bank", "market", "股市", "上涨"],
    "R&D $x_{ <b>": ["laser", "science", "cell", "科学", "实验"],
}


def texts(count: int = 180) -> list[tuple[str, str]]:
    random = np.random.default_rng(0)
    shared = ["the", "of", "今日", "a", "in", "said", *(f"word{number}" for number in range(40))]
    found = []
    for number in range(count):
        label = list(WORDS)[number % len(WORDS)]
        words = [*random.choice(shared, 6), *random.choice(WORDS[label], 3)]
        found.append((label, " ".join(random.permutation(words))))
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which every stage has run. Read only."""
    root = tmp_path_factory.mktemp("texts")
    pl.DataFrame(texts(), schema=["label", "text"], orient="row").write_csv(root / "texts.csv")
    return run(root, "tiny", SCENARIO)


def test_the_report_compares_with_a_support_vector_machine(finished: Path) -> None:
    metrics = read_json(finished / "report" / "metrics.json")
    assert metrics["measures"][0]["key"] == "accuracy"
    contenders = metrics["contenders"]
    assert contenders["linear"]["accuracy"] > 0.9 > contenders["commonest"]["accuracy"]
    assert contenders["teacher"]["accuracy"] > 0.8 and 0 < contenders["teacher"]["macro_f1"] <= 1
    assert contenders["pruned"]["parameters"] < contenders["student"]["parameters"]
    assert contenders["pruned.int8_table4"]["bytes"] < contenders["pruned.fp32"]["bytes"]


def test_a_package_tells_labels_of_chinese_and_english_texts(finished: Path) -> None:
    predictor = Predictor(finished / "package")
    assert predictor.ask({"text": "Goal! The TEAM won the match."}).labels[0] == "sport"
    assert predictor.ask({"text": "今日股市上涨, 股市上涨"}).labels[0] == "财经"
    answer = predictor.ask({"text": "☃" * 500})  # Nothing of it is known.
    assert sum(answer.probabilities) == pytest.approx(1) and set(answer.labels) == set(WORDS)
    with pytest.raises(DataError, match="nothing but white space"):
        predictor.ask({"text": " \u200b\n"})
    assert predictor.replay_golden() == 16


def test_no_training_text_is_in_the_package(finished: Path) -> None:
    golden = (finished / "package" / "golden.json").read_text(encoding="utf-8")
    task = open_task("text", finished / "dataset")
    assert not any(text in golden for text in task.dataset.all_texts)  # type: ignore[attr-defined]


def test_the_service_answers_and_refuses(finished: Path) -> None:
    live = LiveModel(Metrics())
    live.swap(ServedModel(finished / "package", live.threads))
    client = TestClient(service_app(live, Limits()))
    told = client.post("/predict", json={"text": "bank profit 股市"}).json()
    assert told["labels"][0]["label"] == "财经" and told["version"] == "tiny"
    batch = client.post("/predict/batch", json={"requests": [{"text": "goal"}, {"text": "laser cell " * 9}]}).json()
    assert len(batch["answers"]) == 2
    for body in (
        {"text": ""},
        {"text": " \n"},
        {"text": "\ufffd"},
        {"text": "x" * 100_001},
        {"values": [1.0]},
        {"text": 3},
    ):
        assert client.post("/predict", json=body).status_code == 422, body
    live.stop()


def test_answering_needs_no_torch(finished: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from components.serving.predictor import Predictor; "
        f"Predictor(Path({str(finished / 'package')!r})).ask({{'text': 'goal'}}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("place", ["teacher/member-0", "pruned"])
def test_neither_padding_nor_neighbours_change_an_answer(finished: Path, place: str) -> None:
    network = read_network(finished / place)
    model = export_onnx(network)
    random = np.random.default_rng(0)
    rows = [random.integers(0, 60, length) for length in (1, 2, 7, 8, 9, 16)]
    alone = np.concatenate([outputs_of(model, [padded_tokens([row])]) for row in rows])
    with torch.inference_mode():
        expected = np.concatenate(
            [network(*(torch.from_numpy(part) for part in padded_tokens([row]).values())).numpy() for row in rows]
        )
    np.testing.assert_allclose(alone, expected, rtol=0, atol=1e-5)
    together = padded_tokens(rows)
    together["tokens"][together["tokens"] == 0] = 5  # What stands behind a text is nothing to it.
    for row, tokens in enumerate(rows):
        together["tokens"][row, : len(tokens)] = tokens
    np.testing.assert_allclose(outputs_of(model, [together]), alone, rtol=0, atol=1e-5)


def test_the_tokenizer_has_seen_the_training_texts_only(finished: Path) -> None:
    held_out = pl.concat([pl.read_parquet(finished / "dataset" / f"{name}.parquet") for name in ("validation", "test")])
    assert len(held_out) > 20
    root = finished.parents[1]
    before = (finished / "dataset" / "tokenizer.json").read_bytes()
    record = read_json(finished / "source.json")
    changed = pl.read_parquet(finished / "events.parquet").with_columns(
        text=pl.when(pl.col("row").is_in(held_out["row"].implode()))
        .then(pl.col("text") + " unheardofword unheardofword")
        .otherwise("text")
    )
    from components.data.preparing_texts import prepare_texts
    from components.data.texts import texts_digest
    from components.settings.text_prepare import TextPrepareSettings

    other = root / "changed"
    other.mkdir()
    changed.write_parquet(other / "events.parquet")
    pl.read_parquet(finished / "items.parquet").write_parquet(other / "items.parquet")
    (other / "source.json").write_text(json.dumps({**record, "digest": texts_digest(changed)}))
    prepare_texts(other, other / "dataset", TextPrepareSettings(**SCENARIO["prepare"]))
    assert (other / "dataset" / "tokenizer.json").read_bytes() == before
    (other / "dataset" / "tokenizer.json").write_bytes(before.replace(b"goal", b"gaol"))
    with pytest.raises(IntegrityError):
        open_task("text", other / "dataset")


def test_macro_f1_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    random = np.random.default_rng(0)
    found, targets = random.integers(0, 4, 50), random.integers(0, 3, 50)
    expected = f1_score(targets, found, average="macro", labels=[0, 1, 2])
    assert macro_f1(found, targets, 5) == pytest.approx(expected)
