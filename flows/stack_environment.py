"""What the processes of the stack are told: addresses, ports and credentials, and the file that keeps them for others.

There is no default secret: the object store's credentials are made up on the first start and kept readable by their
owner alone.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.storage.object_store import STORE_VARIABLE
from flows.repository import store_of

HOST = "127.0.0.1"
GRPC = 10_000
"""SeaweedFS puts its gRPC servers on its ports plus this."""
_BUCKET = "recstill"
_INTERNAL = ("STACK_MASTER_PORT", "STACK_VOLUME_PORT", "STACK_FILER_PORT")


@dataclass(frozen=True)
class Stack:
    """What `recstill up` was asked for.

    Attributes:
        root: The checkout.
        name: The scenario that is retrained and served.
        service_port: Of the service.
        prefect_port: Of the Prefect server and its pages.
        store_port: Of the object store's S3 interface.
        cron: When to retrain, in UTC.
        postgres: ``postgresql://user:password@host/database`` for the Prefect server; None: SQLite.
    """

    root: Path
    name: str
    service_port: int
    prefect_port: int
    store_port: int
    cron: str
    postgres: str | None = None

    @property
    def folder(self) -> Path:
        """Where everything is kept."""
        return self.root / ".recstill" / "stack"

    @property
    def starts_store(self) -> bool:
        """Whether it has an object store of its own: none is named, and SeaweedFS is installed."""
        return not os.environ.get(STORE_VARIABLE) and shutil.which("weed", path=search_path()) is not None


def environment_of(stack: Stack) -> dict[str, str]:
    """The variables of the processes, and of other shells that talk to them."""
    api = f"http://{HOST}:{stack.prefect_port}/api"
    folder = stack.folder.resolve()
    found = {
        "PREFECT_API_URL": api,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        # Leases in memory would be lost with the server, and the slots of what ran then never given back.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_WORKER_QUERY_SECONDS": "3",
        "PYTHONUNBUFFERED": "1",
        "STACK_FOLDER": str(folder),
        "STACK_NAME": stack.name,
        "STACK_CRON": stack.cron,
        "STACK_PREFECT_PORT": str(stack.prefect_port),
        "STACK_SERVICE_PORT": str(stack.service_port),
        "STACK_STORE_URLS": "",
    }
    if stack.postgres:
        found["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = _with_driver(stack.postgres)
    if stack.starts_store:
        found |= _store_environment(stack, folder)
    else:
        found[STORE_VARIABLE] = store_of(stack.root).address
    return found


def _store_environment(stack: Stack, folder: Path) -> dict[str, str]:
    (folder / "seaweedfs").mkdir(parents=True, exist_ok=True)
    key, secret = _credentials(folder / "identities.json")
    inner = dict(zip(_INTERNAL, _free_ports(len(_INTERNAL), {stack.store_port}), strict=True))
    endpoint = f"http://{HOST}:{stack.store_port}"
    master = f"http://{HOST}:{inner['STACK_MASTER_PORT']}/dir/assign"
    return {
        **{name: str(port) for name, port in inner.items()},
        "STACK_S3_PORT": str(stack.store_port),
        "STACK_STORE_URLS": f"{endpoint}/healthz {master}",
        "STACK_BUCKET": f"s3://{_BUCKET}",
        STORE_VARIABLE: f"s3://{_BUCKET}",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def _credentials(path: Path) -> tuple[str, str]:
    """Those of the store on this machine, made up the first time: there is no default secret."""
    if not path.is_file():
        pair = {"accessKey": f"recstill-{secrets.token_hex(4)}", "secretKey": secrets.token_hex(24)}
        identity = {"name": "recstill", "credentials": [pair], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
        _write_private(path, json.dumps({"identities": [identity]}))
    pair = json.loads(path.read_text(encoding="utf-8"))["identities"][0]["credentials"][0]
    return str(pair["accessKey"]), str(pair["secretKey"])


def write_environment(path: Path, environment: dict[str, str]) -> None:
    """Write variables, one a line, for a shell and for honcho; nobody else may read them."""
    _write_private(path, "".join(f"{name}={shlex.quote(value)}\n" for name, value in environment.items()))


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)
    temporary.replace(path)


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what a server does that is started again
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


def _free_ports(count: int, taken: set[int]) -> Sequence[int]:
    free = (port for port in range(19_333, 40_000) if port not in taken and is_free(port) and is_free(port + GRPC))
    return [next(free) for _ in range(count)]


def _with_driver(address: str) -> str:
    return f"postgresql+asyncpg://{address.partition('://')[2]}"


def search_path() -> str:
    """The programs of the environment that this command is in come first, activated or not."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
