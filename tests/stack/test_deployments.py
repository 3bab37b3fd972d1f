"""Schedules, triggers and limits on a real Prefect server on Postgres, with a real worker."""

from __future__ import annotations

import json
import textwrap
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flows.events import REGISTERED, resource_id
from tests.end_to_end.conftest import Checkout
from tests.stack.conftest import PrefectServer, Worker, wait_until

SCENARIO = "synthetic"


class Api:
    """Questions to the server apart from the code under test."""

    def __init__(self, server: PrefectServer) -> None:
        self._url = server.api_url

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            f"{self._url}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
            return json.loads(content) if content else None

    def deployments(self) -> dict[str, dict[str, Any]]:
        found = self.post("deployments/filter", {"deployments": {"tags": {"all_": ["recstill"]}}})
        return {f"{one['entrypoint'].rpartition('.')[2]}/{one['name']}": one for one in found}

    def automations(self) -> list[dict[str, Any]]:
        return self.post("automations/filter", {})

    def limits(self) -> dict[str, int]:
        return {one["name"]: one["limit"] for one in self.post("v2/concurrency_limits/filter", {"limit": 200})}

    def run(self, deployment: str) -> str:
        return str(self.post(f"deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"])

    def runs(self, deployment: str) -> list[dict[str, Any]]:
        body = {"deployments": {"id": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_ASC"}
        return self.post("flow_runs/filter", body)

    def state(self, run: str) -> str:
        (found,) = self.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})
        return str(found["state"]["name"])


@pytest.fixture
def api(prefect_server: PrefectServer) -> Api:
    return Api(prefect_server)


@pytest.fixture
def checkout(fresh: Checkout, prefect_server: PrefectServer) -> Iterator[Checkout]:
    made = Checkout(fresh.root, {**fresh.environment, **prefect_server.environment})
    yield made
    made.succeed("recstill", "schedule", "--remove")


def instead_of(flow: str, signature: str, body: str) -> str:
    """A module of a flow with the signature of the real one, which only notes what it is given."""
    text = textwrap.indent(textwrap.dedent(body), "    ")
    head = "import json, time\nfrom pathlib import Path\nfrom prefect import flow\n\n"
    return f"{head}@flow(name={flow!r})\ndef {flow}({signature}):\n{text}\n"


RETRAIN = "scenario: str, as_of: str | None = None, warm: bool | None = None, force: bool = False"
DEPLOY = "name: str, version: int | None = None, attestation: str | None = None, approval: bool = False"


def test_what_is_registered_is_what_was_asked_for(checkout: Checkout, api: Api) -> None:
    printed = checkout.succeed("recstill", "schedule", SCENARIO, "--cron", "15 4 * * *", "--audit-cron", "1 1 * * *")
    assert "15 4 * * * UTC" in printed and REGISTERED in printed
    found = api.deployments()
    assert set(found) == {f"retrain/{SCENARIO}", f"deploy/{SCENARIO}", "audit/nightly"}
    retrain, deploy, audit = (found[name] for name in (f"retrain/{SCENARIO}", f"deploy/{SCENARIO}", "audit/nightly"))
    assert [one["schedule"]["cron"] for one in retrain["schedules"]] == ["15 4 * * *"]
    assert [one["schedule"]["cron"] for one in audit["schedules"]] == ["1 1 * * *"]
    assert retrain["parameters"] == {"scenario": SCENARIO} and retrain["global_concurrency_limit"]["limit"] == 1
    assert retrain["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert deploy["schedules"] == [] and deploy["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert deploy["parameters"] == {"name": SCENARIO, "approval": False}
    assert retrain["job_variables"]["working_dir"] == str(checkout.root)
    (trigger,) = [one for one in api.automations() if one["name"] == f"deploy/{SCENARIO}"]
    assert trigger["trigger"]["expect"] == [REGISTERED]
    assert trigger["trigger"]["match"] == {"prefect.resource.id": resource_id(SCENARIO)}
    limits = api.limits()
    assert limits["recstill-gpu"] == 1
    stages = {name for name in limits if name.startswith("recstill-stage-")}
    assert stages == {f"recstill-stage-{stage}" for stage in checkout_stages(checkout)}


def checkout_stages(checkout: Checkout) -> list[str]:
    listed = checkout.succeed("dvc", "stage", "list", "--name-only").split()
    return [address for address in listed if address.endswith(f"@{SCENARIO}")]


def test_registering_again_changes_and_doubles_nothing(checkout: Checkout, api: Api) -> None:
    checkout.succeed("recstill", "schedule", SCENARIO, "--cron", "15 4 * * *")
    before = {name: one["id"] for name, one in api.deployments().items()}
    checkout.succeed("recstill", "schedule", SCENARIO, "--every", "6h", "--approve")
    after = api.deployments()
    assert {name: one["id"] for name, one in after.items()} == before
    (schedule,) = after[f"retrain/{SCENARIO}"]["schedules"]
    assert schedule["schedule"]["interval"] == 6 * 3600
    assert after[f"deploy/{SCENARIO}"]["parameters"]["approval"] is True
    assert len([one for one in api.automations() if one["name"] == f"deploy/{SCENARIO}"]) == 1
    assert "every 6:00:00" in checkout.succeed("recstill", "schedule", "--list")


def test_what_is_removed_leaves_nothing(checkout: Checkout, api: Api) -> None:
    checkout.succeed("recstill", "schedule", SCENARIO, "--every", "6h")
    assert f"retrain/{SCENARIO}: removed" in checkout.succeed("recstill", "schedule", SCENARIO, "--remove")
    assert api.deployments() == {}  # the audit went with the last scenario
    assert [one for one in api.automations() if one["name"].startswith("deploy/")] == []
    assert not [name for name in api.limits() if name.startswith("recstill-stage-")]
    assert "nothing is registered" in checkout.succeed("recstill", "schedule", "--list")
    again = checkout.succeed("recstill", "schedule", SCENARIO, "--remove")
    assert f"nothing is registered of {SCENARIO}" in again


def test_a_pool_of_another_type_is_refused(checkout: Checkout, api: Api) -> None:
    image = ("--pool-type", "docker", "--image", "recstill:0.1.0")
    checkout.succeed("recstill", "schedule", SCENARIO, "--pool", "boxes", *image)
    template = {one["name"]: one for one in api.post("work_pools/filter", {})}["boxes"]["base_job_template"]
    assert template["variables"]["properties"]["volumes"]["default"] == ["recstill-checkout:/checkout"]
    assert api.deployments()[f"retrain/{SCENARIO}"]["job_variables"] == {"image": "recstill:0.1.0"}
    said = checkout.refuse("recstill", "schedule", SCENARIO, "--pool", "boxes")
    assert "the work pool 'boxes' is of type docker, not process" in said
    said = checkout.refuse("recstill", "schedule", SCENARIO, "--pool-type", "kubernetes")
    assert "need an image" in said
    said = checkout.refuse("recstill", "schedule", SCENARIO, "--pool-type", "docker", "--image", "recstill:latest")
    assert "has no version" in said


def test_an_event_starts_the_deployment_with_what_it_tells(
    checkout: Checkout, prefect_worker: Callable[..., Worker], api: Api
) -> None:
    noted = checkout.root / "deployed.json"
    body = "Path('deployed.json').write_text(json.dumps([name, version, attestation, approval]))"
    (checkout.root / "flows/deploy.py").write_text(instead_of("deploy", DEPLOY, body))
    checkout.succeed("recstill", "schedule", SCENARIO, "--pool", "events")
    worker = prefect_worker("events", checkout.root)
    payload = {"name": SCENARIO, "version": 7, "attestation": "a" * 64}
    for name in ("another", SCENARIO):  # the other model's event starts nothing
        event = {
            "id": str(uuid.uuid4()),
            "occurred": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "event": REGISTERED,
            "resource": {"prefect.resource.id": resource_id(name)},
            "payload": {**payload, "name": name},
        }
        api.post("events", [event])
    wait_until(noted.is_file, 60, worker.log.read_text)
    assert json.loads(noted.read_text()) == [SCENARIO, 7, "a" * 64, False]
    assert len(api.runs(api.deployments()[f"deploy/{SCENARIO}"]["id"])) == 1


def test_a_run_that_is_due_while_one_is_at_work_is_cancelled(
    checkout: Checkout, prefect_worker: Callable[..., Worker], api: Api
) -> None:
    body = """
        Path("begun.txt").open("a").write(f"{Path.cwd()}\\n")
        while not Path("go").exists():
            time.sleep(0.2)
    """
    (checkout.root / "flows/retrain.py").write_text(instead_of("retrain", RETRAIN, body))
    checkout.succeed("recstill", "schedule", SCENARIO, "--pool", "overlap")
    deployment = api.deployments()[f"retrain/{SCENARIO}"]["id"]
    worker = prefect_worker("overlap", checkout.root)
    first = api.run(deployment)
    begun = checkout.root / "begun.txt"
    wait_until(begun.is_file, 60, worker.log.read_text)
    second = api.run(deployment)
    wait_until(lambda: api.state(second) == "Cancelled", 60, worker.log.read_text)
    (checkout.root / "go").touch()
    wait_until(lambda: api.state(first) == "Completed", 60, worker.log.read_text)
    assert begun.read_text() == f"{checkout.root}\n"  # once, and in the checkout
    third = api.run(deployment)  # the slot has been given back
    wait_until(lambda: api.state(third) == "Completed", 60, worker.log.read_text)


def test_a_schedule_fires_by_itself(checkout: Checkout, prefect_worker: Callable[..., Worker], api: Api) -> None:
    (checkout.root / "flows/retrain.py").write_text(instead_of("retrain", RETRAIN, "Path('fired').touch()"))
    checkout.succeed("recstill", "schedule", SCENARIO, "--every", "1m", "--pool", "clock")
    worker = prefect_worker("clock", checkout.root)
    wait_until((checkout.root / "fired").is_file, 120, worker.log.read_text)


HOLDER = """
import sys, time
from pathlib import Path
from flows.slots import stage_slots
with stage_slots(Path.cwd(), sys.argv[1]):
    begun = time.time()
    time.sleep(3)
    print(begun, time.time())
"""


def held(checkout: Checkout, *addresses: str) -> list[tuple[float, float]]:
    """When each of several processes had its slots, all started at once."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(addresses)) as threads:
        printed = list(threads.map(lambda one: checkout.succeed("python", "-c", HOLDER, one), addresses))
    pairs = [line.split() for line in printed]
    return sorted((float(begun), float(ended)) for begun, ended in pairs)


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_stages_wait_for_one_another(checkout: Checkout, accelerator: str) -> None:
    params = checkout.root / "params.yaml"
    params.write_text(params.read_text().replace("accelerator: cpu", f"accelerator: {accelerator}"))
    checkout.succeed("recstill", "schedule", SCENARIO)
    training = f"train_teacher@{SCENARIO}"
    first, second = held(checkout, training, training)
    assert second[0] >= first[1] - 0.1  # one stage never twice
    first, second = held(checkout, training, f"train_baseline@{SCENARIO}")
    if accelerator == "gpu":
        assert second[0] >= first[1] - 0.1  # one stage at a time has the GPU
    else:
        assert second[0] < first[1]
    first, second = held(checkout, training, f"prepare@{SCENARIO}")
    assert second[0] < first[1]  # what needs no GPU waits for nobody


def test_without_limits_on_the_server_a_stage_just_runs(checkout: Checkout) -> None:
    assert len(held(checkout, "train_teacher@nowhere")) == 1


PUBLISHER = """
from pathlib import Path
from prefect import flow
from flows.artifacts import publish_results, publish_verdict, publish_versions
from flows.run_names import dated

@flow(flow_run_name=dated("scenario"))
def shown(scenario: str):
    publish_results(scenario, Path("report"))
    publish_verdict(scenario, {"passed": True, "checks": [], "reasons": []})
    publish_versions(scenario, [{"version": 1, "live": "yes"}])

shown("Movie Lens")
"""


def test_a_run_shows_its_results(checkout: Checkout, api: Api) -> None:
    report = checkout.root / "report"
    report.mkdir()
    (report / "metrics.json").write_text(
        '{"contenders": {"teacher": {"ndcg10": 0.1}}, "measures": [{"key": "ndcg10"}]}'
    )
    (report / "choice.json").write_text('{"chosen": "teacher"}')
    (report / "index.html").write_text("<p>plots</p>")
    checkout.succeed("python", "-c", PUBLISHER)
    found = {one["key"]: one for one in api.post("artifacts/filter", {"sort": "CREATED_DESC"}) if one["key"]}
    assert {"results-movie-lens", "report-movie-lens", "gate-movie-lens", "versions-movie-lens"} <= set(found)
    assert json.loads(found["results-movie-lens"]["data"])[0]["ships"] == "yes"
    assert (report / "index.html").as_uri() in found["report-movie-lens"]["data"]
    assert "# Movie Lens: passed" in found["gate-movie-lens"]["data"]
    (run,) = api.post("flow_runs/filter", {"flow_runs": {"id": {"any_": [found["gate-movie-lens"]["flow_run_id"]]}}})
    assert run["name"].startswith("Movie Lens 20")


def test_the_nightly_audit_fails_when_a_release_is_not_whole(
    checkout: Checkout, prefect_worker: Callable[..., Worker], api: Api
) -> None:
    checkout.succeed("recstill", "schedule", SCENARIO, "--pool", "audits")
    nightly = api.deployments()["audit/nightly"]["id"]
    worker = prefect_worker("audits", checkout.root)
    run = api.run(nightly)
    wait_until(lambda: api.state(run) == "Completed", 60, worker.log.read_text)  # nothing is registered yet
    forged = checkout.root / ".recstill/store/releases/shop/v1/attestation.dsse.json"
    forged.parent.mkdir(parents=True)
    forged.write_text("{}")
    run = api.run(nightly)
    wait_until(lambda: api.state(run) == "Failed", 60, worker.log.read_text)
    assert "shop@v1" in worker.log.read_text() and "Traceback" not in worker.log.read_text()
    pages = [
        one["data"] for one in api.post("artifacts/filter", {"sort": "CREATED_DESC"}) if one["key"] == "audit-audit"
    ]
    assert "| shop@v1 | **not whole** |" in pages[0]
