"""Deploying and going back with the real commands, a real store, and a real Prefect server where one is needed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.serving.pointer import current, history
from flows.finalizing import FinishedRun, finalize
from flows.registry import staged
from flows.repository import store_of
from flows.trust import trusted
from tests.end_to_end.conftest import Checkout, finished  # noqa: F401  # a fixture
from tests.integration.conftest import S3Server
from tests.stack.conftest import PrefectServer, wait_until
from tests.stack.running_service import running_service
from tests.unit.flows.small_checkout import VERDICT, git


def with_versions(checkout: Checkout, count: int) -> Checkout:
    """Finalize the run of a checkout several times over, as if it were several runs."""
    git(checkout.root, "config", "user.name", "Tess Ter")
    git(checkout.root, "config", "user.email", "tess@example.org")
    lock = checkout.root / "dvc.lock"
    for number in range(1, count + 1):
        lock.write_text(lock.read_text() + f"# {number}\n")
        run = FinishedRun(checkout.root, checkout.root, "synthetic", f"{number:064x}"[::-1], VERDICT)
        assert finalize(run, lambda line: None).version == number
    return checkout


@pytest.fixture(scope="module")
def registered(finished: tuple[Checkout, str], tmp_path_factory: pytest.TempPathFactory) -> Checkout:  # noqa: F811
    root = tmp_path_factory.mktemp("registered") / "checkout"
    shutil.copytree(finished[0].root, root, symlinks=True)
    return with_versions(Checkout(root, finished[0].environment), 3)


@pytest.fixture
def checkout(registered: Checkout, tmp_path: Path) -> Checkout:
    shutil.copytree(registered.root, tmp_path / "checkout", symlinks=True)
    return Checkout(tmp_path / "checkout", registered.environment)


def live(checkout: Checkout) -> int | None:
    now = current(store_of(checkout.root), "synthetic", trusted(checkout.root))
    return now.version if now else None


def test_deploy_then_back_in_five_seconds_without_a_server_then_all_is_told(checkout: Checkout) -> None:
    assert "synthetic@v1 is live" in checkout.succeed("recstill", "deploy", "synthetic@v1", "--why", "the first")
    printed = checkout.succeed("recstill", "deploy", "synthetic", "--approve-by", "Ann", "--why", "better")
    assert "golden requests answered as expected" in printed and "synthetic@v3 is live" in printed
    seconds = []
    for options, version in (((), 1), (("--to", "v3", "--reason", "it was not that"), 3)):
        started = time.monotonic()
        assert f"synthetic@v{version} is live again" in checkout.succeed("recstill", "rollback", "synthetic", *options)
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 5, "the slower one may have met with other tests"
    told = json.loads(checkout.succeed("recstill", "versions", "synthetic", "--json"))
    assert told["live"] == 3
    assert {row["version"]: row["state"] for row in told["versions"]} == {3: "live", 2: "registered", 1: "before"}
    printed = checkout.succeed("recstill", "versions", "synthetic")
    assert "switch 2: deploy to v3 by Ann" in printed and "it was not that" in printed
    tags = checkout.succeed("git", "tag", "--list", "synthetic#*").split()
    assert sorted(tags) == [f"synthetic#prod#{number}" for number in range(1, 5)]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("deploy", "synthetic@v9"), "there are v1, v2, v3"),
        (("deploy", "synthetc"), "nearest known one is 'synthetic'"),
        (("deploy", "synthetic@latest"), "is no version"),
        (("deploy", "synthetic@v1", "--canary", "0.1", "--shadow"), "exclude each other"),
        (("deploy", "synthetic@v1", "--shadow"), "needs a running service"),
        (("deploy", "synthetic@v1", "--service", "http://127.0.0.1:9"), "nothing to try"),
        (("deploy", "synthetic@v1", "--shadow", "--service", "http://127.0.0.1:9"), "does not answer"),
        (("rollback", "synthetic"), "has ever been live"),
        (("rollback", "synthetic", "--to", "newest"), "is no version"),
        (("rollback", "synthetic@v1"), "to it, or away from it"),
        (("versions", "other"), "no version of 'other'"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(checkout: Checkout, command: tuple[str, ...], words: str) -> None:
    assert words in checkout.refuse("recstill", *command)
    assert live(checkout) is None


def test_a_kill_between_switch_and_tag_is_mended_by_the_next_deployment(checkout: Checkout) -> None:
    killed = (
        "import os, signal, sys; from flows import promoting; from flows.cli import main; "
        "promoting.mark_stage = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
        "sys.argv[1:] = ['deploy', 'synthetic@v2']; main()"
    )
    assert checkout.run(sys.executable, "-c", killed).returncode == -signal.SIGKILL
    assert live(checkout) == 2 and staged(checkout.root, "synthetic") is None
    assert "is live already" in checkout.succeed("recstill", "deploy", "synthetic@v2")
    assert staged(checkout.root, "synthetic") == 2
    assert len(history(store_of(checkout.root), "synthetic", trusted(checkout.root))) == 1


def test_two_deployments_at_once_leave_one_history_and_no_half_switch(checkout: Checkout) -> None:
    commands = [["recstill", "deploy", f"synthetic@v{version}"] for version in (1, 2, 3)]
    running = [
        subprocess.Popen(
            command,
            cwd=checkout.root,
            env=checkout.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    ended = [(process.communicate(timeout=120), process.returncode) for process in running]
    done = [out for (out, _), code in ended if code == 0]
    switches = history(store_of(checkout.root), "synthetic", trusted(checkout.root))
    assert len(switches) == len(done) >= 1
    for (_, errors), code in ended:
        assert code == 0 or ("was faster" in errors and "Traceback" not in errors)


def test_a_real_service_tries_a_candidate_under_load_and_then_serves_it(checkout: Checkout) -> None:
    checkout.succeed("recstill", "deploy", "synthetic@v1")
    with running_service("synthetic", "--poll", "0.2", folder=checkout.root) as service:
        stop, lost = threading.Event(), []

        def load() -> None:
            while not stop.wait(0.01):
                status, _ = service.ask("/recommend", {"history": ["3", "7"], "k": 5})
                lost.extend([status] if status != 200 else [])

        thread = threading.Thread(target=load)
        thread.start()
        try:
            printed = checkout.succeed(
                "recstill", "deploy", "synthetic@v2", "--canary", "0.5", "--for", "2", "--service", service.url
            )
            assert "canary, 50% of the requests" in printed and ", 0 errors" in printed
            checkout.succeed("recstill", "deploy", "synthetic@v3", "--shadow", "--for", "2", "--service", service.url)
            wait_until(lambda: service.ask("/model")[1]["version"] == 3, 10)
        finally:
            stop.set()
            thread.join()
        assert lost == []
        # Nobody asks any more: nothing can be known of a candidate.
        refused = checkout.refuse(
            "recstill", "deploy", "synthetic@v1", "--canary", "1", "--for", "1", "--service", service.url
        )
        assert "got no request" in refused
        wait_until(lambda: service.ask("/model")[1]["candidate"] is None, 10)
        assert live(checkout) == service.ask("/model")[1]["version"] == 3


def test_finalizing_deploying_and_going_back_on_s3(
    finished: tuple[Checkout, str],  # noqa: F811
    s3_server: S3Server,
    s3_environment: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bucket = s3_server.new_bucket()
    monkeypatch.setenv("RECSTILL_STORE", f"s3://{bucket}/team")
    shutil.copytree(finished[0].root, tmp_path / "checkout", symlinks=True)
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    checkout = Checkout(
        tmp_path / "checkout", {**finished[0].environment, **aws, "RECSTILL_STORE": f"s3://{bucket}/team"}
    )
    with_versions(checkout, 2)
    keys = [entry["Key"] for entry in s3_server.client().list_objects_v2(Bucket=bucket)["Contents"]]
    assert any(key.startswith("team/dvc/files/md5/") for key in keys)
    checkout.succeed("recstill", "deploy", "synthetic@v1")
    checkout.succeed("recstill", "deploy", "synthetic@v2")
    started = time.monotonic()
    checkout.succeed("recstill", "rollback", "synthetic")
    seconds = time.monotonic() - started
    print(f"back on S3 in {seconds:.2f} s")
    assert seconds < 5 and live(checkout) == 1
    # A byte that is flipped at the remote is found there.
    from flows.dvc_remote import push_scenario, verify_pushed

    key = max(
        (key for key in keys if "/dvc/" in key),
        key=lambda key: s3_server.client().head_object(Bucket=bucket, Key=key)["ContentLength"],
    )
    content = bytearray(s3_server.client().get_object(Bucket=bucket, Key=key)["Body"].read())
    content[100] ^= 1
    s3_server.client().put_object(Bucket=bucket, Key=key, Body=bytes(content))
    assert len(verify_pushed(checkout.root, "synthetic")) == 1
    assert push_scenario(checkout.root, "synthetic", lambda line: None, again=True) == 1
    assert verify_pushed(checkout.root, "synthetic") == []


FLOW = "import json, sys; from flows.deploy import deploy; deploy(**json.loads(sys.argv[1]))"


def start_flow(checkout: Checkout, server: PrefectServer, **parameters: Any) -> subprocess.Popen[str]:
    environment = {**checkout.environment, **server.environment}
    return subprocess.Popen(
        [sys.executable, "-c", FLOW, json.dumps(parameters)],
        cwd=checkout.root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def asked(server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The server's API."""
    import httpx

    client = httpx.Client(base_url=server.api_url, timeout=30)

    def post(path: str, **body: Any) -> Any:
        answer = client.post(path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    return post


def test_a_flow_shows_its_steps_and_a_refusal_without_a_traceback(
    checkout: Checkout, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    post = asked(prefect_server, monkeypatch)
    done = start_flow(checkout, prefect_server, name="synthetic", version=2)
    output, _ = done.communicate(timeout=120)
    assert done.returncode == 0 and live(checkout) == 2, output
    run = post("/flow_runs/filter", sort="START_TIME_DESC", limit=1)[0]
    assert run["name"].startswith("deploy synthetic@v2 ") and run["state"]["type"] == "COMPLETED"
    tasks = post("/task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
    assert {one["state"]["type"] for one in tasks} == {"COMPLETED"} and len(tasks) >= 4
    found = post("/artifacts/filter", sort="CREATED_DESC", flow_runs={"id": {"any_": [run["id"]]}})
    (shown,) = [json.loads(one["data"]) for one in found if one["key"] == "versions-synthetic"]
    assert [(row["version"], row["state"]) for row in shown] == [(3, "registered"), (2, "live"), (1, "registered")]
    refused = start_flow(checkout, prefect_server, name="synthetic", version=3, attestation="0" * 64)
    output, _ = refused.communicate(timeout=120)
    run = post("/flow_runs/filter", sort="START_TIME_DESC", limit=1)[0]
    assert run["state"]["type"] == "FAILED" and "was announced" in run["state"]["message"]
    assert live(checkout) == 2
    events = post("/events/filter", filter={"event": {"name": ["recstill.model.deployed"]}})["events"]
    assert [event["payload"]["version"] for event in events] == [2]


@pytest.mark.parametrize("yes", [True, False])
def test_a_flow_waits_for_approval_and_records_who_and_why(
    checkout: Checkout, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch, yes: bool
) -> None:
    post = asked(prefect_server, monkeypatch)
    flow = start_flow(checkout, prefect_server, name="synthetic", version=1, approval=True)

    def paused() -> Any:
        runs = post("/flow_runs/filter", flow_runs={"state": {"type": {"any_": ["PAUSED"]}}})
        return runs[0] if runs else None

    run: Any = wait_until(paused, 90)
    # The form says what it asks for, and the server takes no decision that is nobody's.
    schema = run["state"]["state_details"]["run_input_keyset"]["schema"]
    (found,) = post(f"/flow_runs/{run['id']}/input/filter", prefix=schema)
    assert all(field["description"] for field in json.loads(found["value"])["properties"].values())
    for wrong in ({}, {"who": ""}, {"who": " "}, {"who": "Ann", "approve": "perhaps"}):
        answer = post(f"/flow_runs/{run['id']}/resume", run_input={"approve": yes, "why": "looks right", **wrong})
        assert answer["status"] == "REJECT", answer
    assert live(checkout) is None
    post(f"/flow_runs/{run['id']}/resume", run_input={"approve": yes, "who": "Ann", "why": "looks right"})
    output, _ = flow.communicate(timeout=120)
    if yes:
        entry = current(store_of(checkout.root), "synthetic", trusted(checkout.root))
        assert entry is not None and (entry.version, entry.who, entry.why) == (1, "Ann", "looks right"), output
    else:
        assert live(checkout) is None and "Ann does not approve" in output
