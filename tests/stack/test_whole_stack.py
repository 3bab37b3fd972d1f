"""New data arrive, and what is served follows: every part real, MovieLens-100K cut at two dates.

Postgres, SeaweedFS, a Prefect server, a worker, the service, and a constant load on it. Networks are small and trained
for a few epochs: it is the machinery that is tested, not the quality.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from tests.end_to_end.conftest import Checkout
from tests.integration.conftest import ACCESS_KEY, SECRET_KEY, S3Server
from tests.stack.conftest import PrefectServer, wait_until
from tests.stack.running_service import RunningService, running_service

NAME = "shop"
CUT = datetime(1998, 3, 1, tzinfo=UTC)
_NETWORK = {"dim": 32, "blocks": 1, "heads": 2, "ffn_dim": 64, "max_length": 30}
_OPTIMIZATION = {"max_epochs": 4, "patience": 4, "batch_size": 32, "learning_rate": 0.005, "average_decay": 0.95}
SCENARIO = {
    "task": "next_item",
    "seed": 0,
    "source": {"kind": "table", "path": "data/events"},
    "prepare": {"split": "temporal", "validation_share": 0.1, "test_share": 0.1},
    "teacher": {"network": _NETWORK, "optimization": _OPTIMIZATION},
    "student": {"network": _NETWORK | {"dim": 16, "ffn_dim": 32}, "optimization": _OPTIMIZATION},
    "trainer": {"accelerator": "cpu"},
    "soft_labels": {"k": 16},
    "distillation": {},
    "pruning": {"ffn_ratio": 0.5, "optimization": _OPTIMIZATION | {"max_epochs": 1, "patience": 1}},
    "quantization": {},
    "evaluation": {"bootstrap_samples": 500, "latency_requests": 50, "throughput_batches": 5},
    "budget": {"max_p95_ms": 50},
    "gate": {"min_retention": 0.3},
    # Several hundred users tell no finer differences apart; what is trained on shuffled items is worse by far.
    "retraining": {"gate": {"margin": 0.5, "max_cold_item_share": 0.9}},
}


@dataclass(frozen=True)
class Stack:
    """A checkout whose store, server and worker run, with one version live."""

    checkout: Checkout
    events: pl.DataFrame
    api: str
    bucket: str
    log: Path

    def live(self) -> dict[str, Any]:
        """`recstill versions`, as a script reads it."""
        found: dict[str, Any] = json.loads(self.checkout.succeed("recstill", "versions", NAME, "--json"))
        return found

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """The runs of a flow, newest last."""
        body = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_ASC", "limit": 100}
        return _ask(f"{self.api}/flow_runs/filter", body)


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory, prefect_server: PrefectServer, s3_server: S3Server
) -> Iterator[Stack]:
    from tests.end_to_end.conftest import new_checkout
    from tests.stack.conftest import Worker

    folder = tmp_path_factory.mktemp("whole-stack")
    plain = new_checkout(folder)
    bucket = s3_server.new_bucket()
    checkout = Checkout(
        plain.root,
        {
            **plain.environment,
            **prefect_server.environment,
            "RECSTILL_STORE": f"s3://{bucket}/recstill",
            "AWS_ENDPOINT_URL": s3_server.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
        },
    )
    checkout.succeed("python", "-m", "components.stages.ingest", "movielens")
    events = pl.read_parquet(checkout.root / "artifacts" / "movielens" / "events.parquet")
    (checkout.root / "params.yaml").write_text(yaml.safe_dump({"scenarios": {NAME: SCENARIO}}, sort_keys=False))
    with (checkout.root / ".gitignore").open("a") as stream:
        stream.write("/data/\n")
    for key, value in (("user.name", "Test"), ("user.email", "test@example.org")):
        checkout.succeed("git", "config", key, value)
    checkout.succeed("git", "commit", "-qam", "a shop")
    remote = folder / "remote.git"
    checkout.succeed("git", "init", "-q", "--bare", str(remote))
    checkout.succeed("git", "remote", "add", "origin", str(remote))
    checkout.succeed("git", "push", "-q", "origin", "HEAD")
    _put(checkout.root, "part-1.parquet", _before(events))
    checkout.succeed("recstill", "retrain", NAME, timeout=900)
    checkout.succeed("recstill", "deploy", f"{NAME}@v1", "--approve-by", "the test", "--why", "the first version")
    checkout.succeed("recstill", "schedule", NAME, "--every", "1m")
    worker = Worker("recstill", checkout.root, checkout.environment, folder / "worker.txt")
    try:
        yield Stack(checkout, events, prefect_server.api_url, bucket, folder / "worker.txt")
    finally:
        worker.stop()


@pytest.mark.timeout(1800)
def test_new_data_reach_the_users_by_themselves_and_go_back_in_five_seconds(stack: Stack) -> None:
    before = stack.checkout.succeed("git", "status", "--porcelain")
    with _service(stack) as service, _load(service) as report:
        assert service.ask("/model")[1]["version"] == 1
        _put(stack.checkout.root, "part-2.parquet", _after(stack.events))
        wait_until(lambda: service.ask("/model")[1]["version"] == 2, 900, stack.log.read_text)
        served = datetime.now(UTC)
        event = _ask(
            f"{stack.api}/events/filter",
            {"filter": {"event": {"name": ["recstill.model.registered"]}, "order": "DESC"}},
        )["events"][0]
        event_to_serving = (served - datetime.fromisoformat(event["occurred"])).total_seconds()
        started = time.monotonic()
        stack.checkout.succeed("recstill", "rollback", NAME, "--reason", "a drill")
        rollback = time.monotonic() - started
        wait_until(lambda: service.ask("/model")[1]["version"] == 1, 5)
        picked_up = time.monotonic() - started
    statuses = dict(re.findall(r"\[(\d+)\]\s+(\d+) responses", report[0]))
    print(f"\nevent_to_serving_s={event_to_serving:.1f}\nrollback_s={picked_up:.2f}\nrequests={statuses}")
    assert set(statuses) == {"200"} and int(statuses["200"]) > 500, report[0]
    assert "Error distribution" not in report[0], report[0]
    assert event_to_serving <= 30
    assert rollback <= 5 and picked_up <= 6
    assert stack.checkout.succeed("git", "status", "--porcelain") == before
    tags = stack.checkout.succeed("git", "ls-remote", "--tags", "origin")
    assert f"refs/tags/{NAME}@v1.0.0" in tags and f"refs/tags/{NAME}@v2.0.0" in tags
    run = next(run for run in stack.runs("retrain") if run["state"]["name"] == "Registered")
    assert run["name"].startswith(f"{NAME} 20")
    artifacts = _ask(f"{stack.api}/artifacts/filter", {"sort": "CREATED_DESC"})
    assert {f"results-{NAME}", f"report-{NAME}"} <= {one["key"] for one in artifacts}  # of the stages' own run
    own = {one["key"] for one in artifacts if one["flow_run_id"] == run["id"]}
    assert {f"gate-{NAME}", f"versions-{NAME}"} <= own


@pytest.mark.timeout(1800)
def test_a_challenger_of_shuffled_labels_is_stopped_and_a_tampered_package_refused(
    stack: Stack, s3_server: S3Server
) -> None:
    checkout = stack.checkout
    live = stack.live()
    # Every item is called by another one's name, but for the newest tenth, which measures.
    events = stack.events.sort("timestamp")
    items = events["item"].unique().sort()
    others = pl.Series("other", np.random.default_rng(0).permutation(items.to_numpy()))
    names = pl.DataFrame({"item": items, "other": others})
    count = round(len(events) * 0.8)
    shuffled = events[:count].join(names, on="item").with_columns(item="other").select(events.columns)
    _put(checkout.root, "part-1.parquet", shuffled)
    _put(checkout.root, "part-2.parquet", events[count:])

    def refused() -> bool:
        return any(run["state"]["name"] == "Refused" for run in stack.runs("retrain"))

    wait_until(refused, 900, stack.log.read_text)
    after = stack.live()
    assert (after["live"], len(after["versions"])) == (live["live"], len(live["versions"]))
    refusal = next(run["state"]["message"] for run in stack.runs("retrain") if run["state"]["name"] == "Refused")
    assert "quality" in refusal.lower() or "NDCG" in refusal

    with _service(stack) as service:
        serving = service.ask("/model")[1]["version"]
        client = s3_server.client()
        other = 2 if serving == 1 else 1
        for entry in client.list_objects_v2(Bucket=stack.bucket, Prefix="recstill/packages/")["Contents"]:
            if entry["Key"].endswith("model.onnx"):
                content = bytearray(client.get_object(Bucket=stack.bucket, Key=entry["Key"])["Body"].read())
                content[len(content) // 2] ^= 1
                client.put_object(Bucket=stack.bucket, Key=entry["Key"], Body=bytes(content))
        message = checkout.refuse("recstill", "deploy", f"{NAME}@v{other}")
        assert "model.onnx" in message and "damaged" in message
        assert service.ask("/model")[1]["version"] == serving
        assert service.ask("/recommend", {"history": ["50"], "k": 5})[0] == 200


@contextmanager
def _service(stack: Stack) -> Iterator[RunningService]:
    names = ("RECSTILL_STORE", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    environment = {name: stack.checkout.environment[name] for name in names}
    with running_service(NAME, environment=environment, folder=stack.checkout.root) as service:
        wait_until(lambda: service.ask("/readyz")[0] == 200, 30, lambda: "".join(service.lines))
        yield service


@contextmanager
def _load(service: RunningService) -> Iterator[list[str]]:
    """Twenty requests a second until the block ends; then the list holds hey's report."""
    body = json.dumps({"history": ["50", "172", "1"], "k": 10})
    command = ["hey", "-z", "1800s", "-q", "10", "-c", "2", "-m", "POST", "-T", "application/json", "-d", body]
    process = subprocess.Popen([*command, f"{service.url}/recommend"], stdout=subprocess.PIPE, text=True)
    report: list[str] = []
    try:
        yield report
        process.send_signal(signal.SIGINT)
        report.append(process.communicate(timeout=30)[0])
    finally:
        process.kill()


def _put(root: Path, name: str, events: pl.DataFrame) -> None:
    """A file of events appears whole, as a store's objects do."""
    folder = root / "data" / "events"
    folder.mkdir(parents=True, exist_ok=True)
    events.write_parquet(root / "data" / name)
    (root / "data" / name).replace(folder / name)


def _before(events: pl.DataFrame) -> pl.DataFrame:
    return events.filter(pl.col("timestamp") < int(CUT.timestamp() * 1e6))


def _after(events: pl.DataFrame) -> pl.DataFrame:
    return events.filter(pl.col("timestamp") >= int(CUT.timestamp() * 1e6))


def _ask(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())
