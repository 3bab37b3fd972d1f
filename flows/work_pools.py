"""Work pools: where the server's runs are carried out. Processes of a worker, Docker containers, Kubernetes jobs.

A pool is made when it is missing and left as it is when it is there; what Recstill's own runs need beyond the pool's
template travels with each deployment.
"""

from __future__ import annotations

import shlex
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from components.errors import SettingsError
from components.settings.base import nearest

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PoolType = Literal["process", "docker", "kubernetes"]

POOL = "recstill"
"""The pool, unless another one is named."""

IMAGE_CHECKOUT = "/checkout"
"""Where a container finds the checkout: a volume of that name in Docker, a claim of that name in Kubernetes."""
_VOLUME = "recstill-checkout"
_KEYS = "recstill-signing-key"
_SECRETS = "recstill"
_PRIVATE_USER = 10_001


def pool_type(word: str) -> PoolType:
    """``word`` as a type of work pool.

    Raises:
        SettingsError: It is none.
    """
    for known in get_args(PoolType):
        if word == known:
            return known
    raise SettingsError(f"unknown type of work pool {word!r}; {nearest(word, list(get_args(PoolType)))}")


def ensure_pool(client: SyncPrefectClient, root: Path, name: str, kind: PoolType, image: str | None) -> dict[str, Any]:
    """Make the pool unless it is there.

    Args:
        client: Of the server.
        root: The checkout that processes work in.
        name: The pool's.
        kind: Its type.
        image: For containers; processes have none.

    Returns:
        The job variables of a deployment in this pool.

    Raises:
        SettingsError: Containers without an image or processes with one, an image without a version, or a pool of
            that name with another type.
    """
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists

    job = _job_variables(root, kind, image)
    try:
        client.create_work_pool(
            WorkPoolCreate(
                name=name,
                type=kind,
                base_job_template=base_job_template(kind),
                description="Runs of Recstill",
            )
        )
    except ObjectAlreadyExists:
        there = client.read_work_pool(name)
        if there.type != kind:
            raise SettingsError(
                f"the work pool {name!r} is of type {there.type}, not {kind}",
                f"Give --pool-type {there.type}, or another name with --pool.",
            ) from None
    return job


def base_job_template(kind: PoolType) -> dict[str, Any]:
    """What a pool of this type starts for a run, with Recstill's checkout and bounds where containers are started."""
    if kind == "process":
        from prefect.workers.process import ProcessWorker

        return dict(ProcessWorker.get_default_base_job_template())
    try:
        worker = import_module(f"prefect_{kind}.worker")
    except ImportError:
        raise SettingsError(
            f"prefect-{kind} is not installed, which {kind} pools need", f"pip install 'recstill[{kind}]'"
        ) from None
    if kind == "docker":
        template: dict[str, Any] = worker.DockerWorker.get_default_base_job_template()
        defaults = {
            "auto_remove": True,
            "volumes": [f"{_VOLUME}:{IMAGE_CHECKOUT}"],
            "image_pull_policy": "IfNotPresent",
        }
    else:
        template = worker.KubernetesWorker.get_default_base_job_template()
        defaults = {"namespace": "recstill", "finished_job_ttl": 86_400, "service_account_name": "recstill-run"}
        defaults |= {"cpu_request": "1", "cpu_limit": "4", "memory_request": "2Gi", "memory_limit": "8Gi"}
        _harden(template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"])
    for variable, value in defaults.items():
        template["variables"]["properties"][variable]["default"] = value
    return template


def _harden(pod: dict[str, Any]) -> None:
    """As infra/kubernetes has it: not root, a root file system that is not written, secrets by reference."""
    pod["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": _PRIVATE_USER,
        "fsGroup": _PRIVATE_USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    pod["volumes"] = [
        {"name": "checkout", "persistentVolumeClaim": {"claimName": _VOLUME}},
        {"name": "key", "secret": {"secretName": _KEYS, "defaultMode": 0o440}},
        {"name": "temporary", "emptyDir": {"sizeLimit": "4Gi"}},
    ]
    container = pod["containers"][0]
    container["securityContext"] = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container["envFrom"] = [{"configMapRef": {"name": _SECRETS}}, {"secretRef": {"name": _SECRETS}}]
    container["volumeMounts"] = [
        {"name": "checkout", "mountPath": IMAGE_CHECKOUT},
        {"name": "key", "mountPath": "/run/recstill", "readOnly": True},
        {"name": "temporary", "mountPath": "/tmp"},
    ]


def _job_variables(root: Path, kind: PoolType, image: str | None) -> dict[str, Any]:
    if kind == "process":
        if image:
            raise SettingsError("--image is for containers", "Give --pool-type docker or kubernetes with it.")
        # Given a command, a worker does not first look for dependencies to install.
        return {"working_dir": str(root), "command": f"{shlex.quote(sys.executable)} -m prefect.engine"}
    if not image:
        raise SettingsError(
            f"runs in a {kind} pool need an image", "Build one (docs/operations.md) and name it: --image NAME:VERSION."
        )
    name, _, version = image.rpartition("/")[2].partition(":")
    if "@sha256:" not in image and (not name or not version or version == "latest"):
        raise SettingsError(f"the image {image!r} has no version", "Name it as NAME:VERSION or NAME@sha256:DIGEST.")
    return {"image": image}
