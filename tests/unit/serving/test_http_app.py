"""The HTTP interface: what it answers, and that whatever is wrong with a request is told and never a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from components.data.dataset import PreparedDataset
from components.serving.http_app import service_app
from components.serving.limits import Limits
from components.serving.live_model import LiveModel
from components.serving.metrics import Metrics
from components.serving.predictor import Predictor
from components.serving.served_model import ServedModel

LIMITS = Limits(body_bytes=20_000, history=50, id_length=20, k=30, batch=4)


@pytest.fixture(scope="module")
def live(package: Path) -> Iterator[LiveModel]:
    made = LiveModel(Metrics())
    made.swap(ServedModel(package, made.threads))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def client(live: LiveModel) -> TestClient:
    return TestClient(service_app(live, LIMITS), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def ids(prepared: PreparedDataset) -> list[str]:
    return prepared.catalogue["id"].to_list()


def test_it_answers_as_the_package_does(client: TestClient, package: Path, ids: list[str]) -> None:
    answer = client.post("/recommend", json={"history": ids[:3], "k": 4})
    expected = Predictor(package).recommend(ids[:3], 4)
    assert answer.status_code == 200
    assert answer.json() == {
        "recommendations": [{"item": item.id, "title": item.title, "score": item.score} for item in expected.items],
        "unknown": [],
        "popular": False,
        "version": "tiny",
    }


def test_excluded_items_are_not_recommended_and_seen_ones_only_when_asked_for(
    client: TestClient, ids: list[str]
) -> None:
    def found(**more: Any) -> set[str]:
        answer = client.post("/recommend", json={"history": ids[:20], "k": 30, **more}).json()
        return {item["item"] for item in answer["recommendations"]}

    assert found() == set(ids[20:])
    assert found(exclude=[*ids[20:30], "unknown"]) == set(ids[30:])
    assert found(exclude_seen=False) & set(ids[:20])


def test_unknown_items_are_ignored_and_counted(client: TestClient, live: LiveModel, ids: list[str]) -> None:
    before = live.metrics.registry.get_sample_value("recstill_unknown_items_total") or 0
    answer = client.post("/recommend", json={"history": ["nobody's", ids[0]]}).json()
    assert answer["unknown"] == ["nobody's"]
    assert answer["recommendations"] == client.post("/recommend", json={"history": ids[:1]}).json()["recommendations"]
    assert live.metrics.registry.get_sample_value("recstill_unknown_items_total") == before + 1


@pytest.mark.parametrize("body", [{}, {"history": []}, {"history": ["nobody's"]}])
def test_without_a_known_item_the_popular_ones_come(
    client: TestClient, prepared: PreparedDataset, body: dict[str, Any]
) -> None:
    answer = client.post("/recommend", json={**body, "k": 3}).json()
    best = prepared.catalogue.sort("train_events", "item", descending=[True, False]).head(3)
    assert answer["popular"]
    assert [item["item"] for item in answer["recommendations"]] == best["id"].to_list()


def test_a_batch_is_answered_as_its_questions_alone(client: TestClient, ids: list[str]) -> None:
    questions = [{"history": ids[:5], "k": 3}, {}, {"history": ids[3:30], "exclude": ids[30:40]}]
    answer = client.post("/recommend/batch", json={"requests": questions})
    assert answer.status_code == 200
    alone = [client.post("/recommend", json=question).json() for question in questions]
    assert [{**one, "version": "tiny"} for one in answer.json()["answers"]] == alone


DEEP = "[" * 9_000 + "]" * 9_000
BAD = {
    "no JSON": ("not json", 400),
    "nothing": ("", 400),
    "NaN": ('{"k": NaN}', 422),
    "Infinity": ('{"k": Infinity}', 422),
    "NaN where nothing belongs": ('{"x": NaN}', 422),
    "negative k": ('{"k": -1}', 422),
    "no k": ('{"k": 0}', 422),
    "too large a k": ('{"k": 31}', 422),
    "enormous k": (f'{{"k": {"9" * 400}}}', 422),
    "k as text": ('{"k": "5"}', 422),
    "k as a truth value": ('{"k": true}', 422),
    "half a k": ('{"k": 1.5}', 422),
    "null": ("null", 422),
    "a list": ("[]", 422),
    "null history": ('{"history": null}', 422),
    "numbers in the history": ('{"history": [1, 2]}', 422),
    "nested history": ('{"history": [["1"]]}', 422),
    "long history": (json.dumps({"history": ["1"] * 51}), 422),
    "long exclusions": (json.dumps({"exclude": ["1"] * 51}), 422),
    "long id": (json.dumps({"history": ["x" * 21]}), 422),
    "unknown key": ('{"histroy": []}', 422),
    "a long unknown key": (json.dumps({"x" * 10_000: 1}), 422),
    "deep JSON": (DEEP, 400),
    "deep JSON in the history": (f'{{"history": {DEEP}}}', 400),
    "half a character": ('{"history": ["\\ud800"]}', 400),
    "no text": (b'{"history": ["\xff"]}', 400),
    "too large a body": (json.dumps({"history": ["1" * 20] * 1000}), 413),
}


@pytest.mark.parametrize(("body", "status"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("path", ["/recommend", "/recommend/batch"])
def test_a_bad_request_is_refused_with_a_reason(client: TestClient, path: str, body: str | bytes, status: int) -> None:
    answer = client.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.json().keys() == {"error", "reason"}
    assert 10 < len(answer.json()["reason"]) < 500


@pytest.mark.parametrize("requests", [[], [{}] * 5, [{"k": -1}], [None], "x"])
def test_a_bad_batch_is_refused(client: TestClient, requests: object) -> None:
    assert client.post("/recommend/batch", json={"requests": requests}).status_code == 422


def test_a_body_without_a_length_is_bounded_too(client: TestClient) -> None:
    def parts() -> Iterator[bytes]:
        yield b'{"history": ["'
        for _ in range(100):
            yield b"x" * 1000

    answer = client.post("/recommend", content=parts(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (413, "body_too_large")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_what_is_not_announced_as_json_is_refused(client: TestClient, kind: str) -> None:
    answer = client.post("/recommend", content="{}", headers={"content-type": kind})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["reason"]


def test_other_addresses_and_methods_are_refused_with_a_reason(client: TestClient) -> None:
    assert client.get("/nowhere").json()["error"] == "not_found"
    answer = client.put("/recommend", json={})
    assert (answer.status_code, answer.json()["error"], answer.headers["allow"]) == (405, "method_not_allowed", "POST")


def test_the_schema_of_requests_is_the_one_that_is_applied(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert schemas["RecommendRequest"]["properties"]["k"]["maximum"] == LIMITS.k
    assert schemas["BatchRequest"]["properties"]["requests"]["items"] == {
        "$ref": "#/components/schemas/RecommendRequest"
    }
    for example in schemas["RecommendRequest"]["examples"]:
        assert client.post("/recommend", json=example).status_code == 200
    for example in schemas["BatchRequest"]["examples"]:
        assert client.post("/recommend/batch", json=example).status_code == 200


def test_the_model_tells_where_it_comes_from(client: TestClient) -> None:
    model = client.get("/model").json()
    assert model["lineage"]["teacher"] == "c" * 64
    assert (model["label"], model["version"], model["candidate"], model["refusals"]) == ("tiny", None, None, [])
    assert model["execution"]["together"] is False, "int8 activations share a scale"


def test_metrics_count_requests_by_version_and_refusals_by_reason(client: TestClient) -> None:
    client.post("/recommend", json={})
    client.post("/recommend", json={"k": -1})
    text = client.get("/metrics").text
    assert 'recstill_requests_total{endpoint="recommend",role="live",version="tiny"}' in text
    assert 'recstill_refused_requests_total{reason="invalid_request"}' in text
    assert 'recstill_request_seconds_bucket{endpoint="recommend",le="0.01"}' in text
    assert 'recstill_live_version{version="tiny"} 1.0' in text


def test_before_a_version_is_live_nothing_is_ready_and_questions_are_put_off() -> None:
    live = LiveModel(Metrics())
    client = TestClient(service_app(live, LIMITS))
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 503
    answer = client.post("/recommend", json={})
    assert (answer.status_code, answer.json()["error"]) == (503, "not_ready")
    assert client.get("/model").json()["version"] is None
    live.stop()


def test_a_model_that_fails_as_it_runs_is_a_503_with_a_reason(
    package: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveModel(Metrics())
    model = ServedModel(package, live.threads)
    live.swap(model)
    feed = model.predictor.answering.feed

    def beyond(parsed: Any) -> Any:
        # Rows that its table does not have: ONNX Runtime itself refuses them.
        return {name: array + array.dtype.type(10**6) for name, array in feed(parsed).items()}

    monkeypatch.setattr(model.predictor.answering, "feed", beyond)
    client = TestClient(service_app(live, LIMITS), raise_server_exceptions=False)
    answer = client.post("/recommend", json={"history": ids[:3]})
    assert (answer.status_code, answer.json()["error"]) == (503, "model_failed")
    monkeypatch.undo()
    assert client.post("/recommend", json={"history": ids[:3]}).status_code == 200
    live.stop()


def test_an_answer_is_told_as_the_model_that_gave_it_tells_it(
    package: Path, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveModel(Metrics())
    model, next_one = (ServedModel(package, live.threads, version=version) for version in (1, 2))
    live.swap(model)
    answered = model.answer

    async def slowly(question: Any) -> Any:
        answer = await answered(question)
        live.swap(next_one)  # of another task it may be
        return answer

    monkeypatch.setattr(model, "answer", slowly)
    monkeypatch.setattr(next_one.predictor.answering, "record", lambda answer: {"answers of another kind": answer})
    answer = TestClient(service_app(live, LIMITS)).post("/recommend", json={"history": ids[:3]}).json()
    assert answer["version"] == "tiny@v1" and len(answer["recommendations"]) == 10
    live.stop()


def test_a_service_that_no_longer_follows_is_not_healthy(live: LiveModel) -> None:
    client = TestClient(service_app(live, LIMITS, healthy=lambda: False))
    assert client.get("/healthz").status_code == 503


KEY = "a key that nobody guesses"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-api-key": "another"}, 401),
        ({"authorization": f"Basic {KEY}"}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"x-api-key": "ключ".encode()}, 401),
        ({"x-api-key": KEY}, 200),
        ({"authorization": f"Bearer {KEY}"}, 200),
    ],
)
def test_with_a_key_questions_need_it_and_probes_do_not(
    live: LiveModel, headers: dict[str, Any], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    client = TestClient(service_app(live, LIMITS, api_key=KEY))
    for method, path in (("POST", "/recommend"), ("POST", "/recommend/batch"), ("GET", "/model")):
        body = {"requests": [{}]} if path.endswith("batch") else {}
        answer = client.request(method, path, headers=headers, **({"json": body} if method == "POST" else {}))
        assert answer.status_code == status
        assert KEY not in answer.text
    assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
    assert client.get("/metrics").status_code == 200
    assert KEY not in caplog.text
