"""What is in infra/ against the schemas of those who read it, and against the rules of the house for containers.

Schemas: compose.yaml against the Compose Specification's (the copy inside check-jsonschema), what kustomize makes of
infra/kubernetes against Kubernetes' own (the copy inside kubernetes-validate). Without kubectl, the files that the
kustomization lists are checked one by one. The Dockerfile, prometheus.yaml and the Procfile have no schema here: what
is asked of them is written below, and no container is started.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.stage_modules import ROOT

INFRA = ROOT / "infra"
# A version that names one release, or a digest.
PINNED = re.compile(r"[^:@\s]+(:v?\d+\.\d+[.\w-]*|@sha256:[0-9a-f]{64})")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((INFRA / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    folder = INFRA / "kubernetes"
    if shutil.which("kubectl"):
        made = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        return list(yaml.safe_load_all(made.stdout))
    named = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    return [one for name in named for one in yaml.safe_load_all((folder / name).read_text())]


@pytest.fixture(scope="module")
def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"] for one in objects if one["kind"] == "Deployment"}


def of_kind(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in objects if one["kind"] == kind]


# compose.yaml


def test_compose_follows_the_compose_specification(compose: dict[str, Any]) -> None:
    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(compose)] == []
    # The schema is one that can refuse.
    spoiled = {"services": {"postgres": {**compose["services"]["postgres"], "healthcheck": {"tests": "x"}}}}
    assert list(validator.iter_errors(spoiled))


def test_compose_has_the_whole_stack(compose: dict[str, Any]) -> None:
    assert {"postgres", "prefect", "worker", "store", "service", "prometheus"} <= set(compose["services"])
    for service in compose["services"].values():
        for name in service.get("depends_on", {}):
            assert name in compose["services"]
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in compose["volumes"]
        for network in service.get("networks", []):
            assert network in compose["networks"]


def test_every_container_is_pinned_bounded_and_not_root(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert PINNED.fullmatch(service["image"]), name
        assert service["mem_limit"], name
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        if name == "owner":  # gives new volumes to their users and ends: it reaches no network
            assert service["network_mode"] == "none" and service["cap_add"] == ["CHOWN"]
        else:
            assert int(service["user"].partition(":")[0]) > 0, name


def test_what_goes_on_running_has_a_health_check(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if service["restart"] != "no":
            assert service["healthcheck"]["test"][0] == "CMD", name


def test_a_service_that_ends_has_the_time_that_its_requests_have(compose: dict[str, Any]) -> None:
    from components.serving.limits import Limits

    period = str(compose["services"]["service"]["stop_grace_period"])
    assert int(period.removesuffix("s")) > Limits().stop_seconds


def test_no_secret_has_a_default(compose: dict[str, Any]) -> None:
    text = (INFRA / "compose.yaml").read_text()
    variables = re.findall(r"(?<!\$)\$\{([^}]*)\}", text)
    assert variables and all(":?" in variable for variable in variables)
    asked_for = {variable.partition(":?")[0] for variable in variables}
    example = dict(
        line.split("=", 1) for line in (INFRA / "environment.example").read_text().splitlines() if line[:1].isalpha()
    )
    assert asked_for == set(example)
    secret = [name for name in example if re.search("PASSWORD|KEY", name)]
    assert len(secret) >= 7 and not any(example[name] for name in secret)


def test_only_the_pages_for_people_are_published_and_only_to_this_machine(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if service.get("ports")}
    assert published == {
        "prefect": ["127.0.0.1:4200:4200"],
        "service": ["127.0.0.1:8000:8000"],
        "prometheus": ["127.0.0.1:9090:9090"],
    }


def test_of_the_store_only_s3_listens_to_the_network(compose: dict[str, Any]) -> None:
    store = compose["services"]["store"]
    version = tuple(int(part) for part in store["image"].rpartition(":")[2].split("."))
    assert version >= (4, 34)
    assert store["expose"] == ["8333"] and "ports" not in store
    flags = dict(word.removeprefix("-").partition("=")[::2] for word in store["command"])
    assert flags["ip.bind"] == "127.0.0.1" and flags["s3.ip.bind"] == "0.0.0.0"
    assert flags["filer.disableHttp"] == "true" and flags["s3.port"] == "8333"


def test_prometheus_asks_the_service_where_it_listens(compose: dict[str, Any]) -> None:
    settings = yaml.safe_load((INFRA / "prometheus.yaml").read_text())
    (job,) = settings["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    host, _, port = target.partition(":")
    assert host in compose["services"] and f"--port {port}" in " ".join(compose["services"][host]["command"])
    assert job["metrics_path"] == "/metrics"


# Kubernetes


def test_manifests_follow_the_schemas_of_kubernetes(objects: list[dict[str, Any]]) -> None:
    version = kubernetes_validate.latest_version()
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)
    spoiled = {**of_kind(objects, "Service")[0], "spec": {"port": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(spoiled, version, strict=True)


def test_pods_are_not_root_and_write_to_volumes_only(pods: dict[str, dict[str, Any]]) -> None:
    assert set(pods) == {"recstill-worker", "recstill-service"}
    for name, pod in pods.items():
        assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            closed = container["securityContext"]
            assert closed["readOnlyRootFilesystem"] is True and closed["allowPrivilegeEscalation"] is False
            assert closed["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= set(container["resources"]["limits"]) & set(container["resources"]["requests"])
            assert any(mount["mountPath"] == "/tmp" for mount in container["volumeMounts"])
            if shutil.which("kubectl"):  # the version is the kustomization's
                assert PINNED.fullmatch(container["image"]), container["image"]


def test_pods_have_probes_on_ports_that_they_open(pods: dict[str, dict[str, Any]]) -> None:
    for name, pod in pods.items():
        for container in pod["containers"]:
            opened = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert container[probe]["httpGet"]["port"] in opened, name
    (service,) = pods["recstill-service"]["containers"]
    assert service["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert service["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_a_clone_that_was_killed_anywhere_is_made_whole_and_a_whole_one_is_left_alone(
    compose: dict[str, Any], pods: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    (init,) = pods["recstill-worker"]["initContainers"]
    script = init["command"]
    assert [word.replace("$$", "$") for word in compose["services"]["checkout"]["command"]] == script
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")

    def git(*words: str, cwd: Path = tmp_path) -> str:
        return subprocess.run(["git", *identity, *words], cwd=cwd, check=True, capture_output=True, text=True).stdout

    origin, checkout = tmp_path / "origin", tmp_path / "checkout"
    git("init", "-q", str(origin))
    (origin / "dvc.yaml").write_text("stages: {}\n")
    git("add", "-A", cwd=origin)
    git("commit", "-q", "-m", "first", cwd=origin)
    checkout.mkdir()
    (checkout / "lost+found").mkdir()  # a new disk is not empty

    def begin() -> None:
        environment = {**os.environ, "RECSTILL_REPOSITORY": str(origin)}
        subprocess.run(script, cwd=checkout, env=environment, check=True)
        assert (checkout / "dvc.yaml").is_file() and not (checkout / ".new").exists()

    (checkout / ".new" / ".git").mkdir(parents=True)  # killed while it was fetched
    begin()
    (checkout / "dvc.yaml").write_text("changed\n")
    begin()
    assert (checkout / "dvc.yaml").read_text() == "changed\n"
    git("checkout", "-q", "--", ".", cwd=checkout)
    (checkout / "dvc.yaml").unlink()  # killed before its files were there
    (checkout / ".git" / "index").rename(checkout / ".git" / "index.lock")
    (checkout / ".new").mkdir()
    begin()
    assert git("status", "--porcelain", cwd=checkout) == ""


def test_git_works_in_a_volume_whose_root_is_not_the_users(pods: dict[str, dict[str, Any]]) -> None:
    from flows.work_pools import IMAGE_CHECKOUT

    (container,) = pods["recstill-worker"]["containers"]
    assert container["workingDir"] == IMAGE_CHECKOUT
    # fsGroup gives a volume's root another group, and never another owner.
    assert f"git config --system safe.directory {IMAGE_CHECKOUT}\n" in (INFRA / "Dockerfile").read_text()


def test_the_worker_asks_for_no_more_than_its_role_and_puts_no_secret_into_jobs(
    objects: list[dict[str, Any]], pods: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect_kubernetes.settings import KubernetesSettings

    assert of_kind(objects, "ClusterRole") == []
    (container,) = pods["recstill-worker"]["containers"]
    for variable in container["env"]:
        field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        monkeypatch.setenv(variable["name"], "recstill" if field == "metadata.namespace" else variable["value"])
    settings = KubernetesSettings()
    assert settings.observer.namespaces == {"recstill"}
    assert settings.worker.api_auth_string_secret_key == "PREFECT_API_AUTH_STRING"
    assert {"secretRef": {"name": settings.worker.api_auth_string_secret_name}} in container["envFrom"]


def test_selectors_and_names_meet(objects: list[dict[str, Any]], pods: dict[str, dict[str, Any]]) -> None:
    labels = {
        one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"] for one in of_kind(objects, "Deployment")
    }
    served = labels["recstill-service"]
    (service,) = of_kind(objects, "Service")
    (scaler,) = of_kind(objects, "HorizontalPodAutoscaler")
    (budget,) = of_kind(objects, "PodDisruptionBudget")
    assert service["spec"]["selector"].items() <= served.items()
    assert budget["spec"]["selector"]["matchLabels"].items() <= served.items()
    assert scaler["spec"]["scaleTargetRef"]["name"] in pods and scaler["spec"]["minReplicas"] >= 2
    settings = {one["metadata"]["name"] for one in of_kind(objects, "ConfigMap")}
    accounts = {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")}
    for pod in pods.values():
        assert pod["serviceAccountName"] in accounts
        for container in pod["containers"]:
            named = [source["configMapRef"]["name"] for source in container["envFrom"] if "configMapRef" in source]
            assert set(named) <= settings


def test_nothing_speaks_to_anything_that_is_not_named(objects: list[dict[str, Any]]) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(objects, "NetworkPolicy")}
    assert policies["closed"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert policies["service"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": 8000}]}]
    # All of Secret, and the rights of a run, come from outside.
    assert of_kind(objects, "Secret") == []


def test_jobs_of_runs_are_as_hardened_as_the_pods(objects: list[dict[str, Any]]) -> None:
    from flows.work_pools import base_job_template

    template = base_job_template("kubernetes")
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    claims = {one["metadata"]["name"] for one in of_kind(objects, "PersistentVolumeClaim")}
    assert {
        volume["persistentVolumeClaim"]["claimName"] for volume in pod["volumes"] if "checkout" in volume["name"]
    } <= claims
    defaults = {key: field.get("default") for key, field in template["variables"]["properties"].items()}
    assert defaults["cpu_limit"] and defaults["memory_limit"]
    assert defaults["service_account_name"] in {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")}
    # With the variables filled in, it is a job that Kubernetes takes.
    manifest = json.loads(json.dumps(template["job_configuration"]["job_manifest"]))
    manifest["metadata"] = {"generateName": "run-", "namespace": defaults["namespace"]}
    spec = manifest["spec"]
    spec["backoffLimit"], spec["ttlSecondsAfterFinished"] = 0, defaults["finished_job_ttl"]
    inner = spec["template"]["spec"]
    for key in ("completions", "parallelism"):  # Prefect's own template has them in the pod, where they mean nothing
        inner.pop(key, None)
    inner["serviceAccountName"] = defaults["service_account_name"]
    inner["containers"][0] |= {"args": [], "env": [], "image": "recstill:0.1.0", "imagePullPolicy": "IfNotPresent"}
    inner["containers"][0]["resources"] = {
        part: {what: defaults[f"{what}_{part[:-1]}"] for what in ("cpu", "memory")} for part in ("limits", "requests")
    }
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


# Dockerfile and Procfile


def test_the_image_is_pinned_and_not_root(compose: dict[str, Any]) -> None:
    lines = (INFRA / "Dockerfile").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert bases and all(PINNED.fullmatch(base) for base in bases)
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users == [compose["services"]["worker"]["user"]]
    assert lines.index(f"USER {users[-1]}") > max(n for n, line in enumerate(lines) if line.startswith("RUN "))
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    let_in = {line[1:] for line in (INFRA / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert set(copied) == let_in and all((ROOT / name).exists() for name in copied)


def test_the_process_file_starts_what_compose_starts(compose: dict[str, Any]) -> None:
    from honcho.environ import parse_procfile

    processes = parse_procfile((INFRA / "Procfile").read_text()).processes
    assert list(processes) == ["store", "server", "worker", "service"]
    flags = set(re.findall(r"-([\w.]+)=", processes["store"]))
    theirs = {word[1:].partition("=")[0] for word in compose["services"]["store"]["command"] if "=" in word}
    assert theirs - flags == {"s3.ip.bind"}  # on one machine S3 too listens to that machine only


def test_no_image_is_called_latest() -> None:
    for path in INFRA.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not re.search(r"image:\s*\S+:latest|:latest\b", text), path
