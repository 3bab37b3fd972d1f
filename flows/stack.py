"""The whole stack on one machine without containers: what ``infra/Procfile`` names, started and ended together.

Everything that it keeps lies below ``.recstill/stack``: the database of the Prefect server unless an address of
Postgres is given, the files of the object store, and ``environment``, for other shells that want to talk to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from honcho.environ import parse_procfile
from honcho.manager import Manager

from components.errors import SettingsError
from components.provenance.signing import signing_key
from components.storage.object_store import STORE_VARIABLE
from flows.awaiting import wait_for
from flows.repository import keys_of
from flows.stack_environment import GRPC, HOST, Stack, environment_of, is_free, search_path, write_environment
from flows.work_pools import POOL

PROCFILE = Path("infra/Procfile")
_READY_SECONDS = 180.0

Say = Callable[[str], None]


def run(stack: Stack, say: Say) -> int:
    """Start everything, say when it is ready, and stay until Ctrl-C or until one of the processes ends.

    Returns:
        0 after Ctrl-C or a polite kill; else the exit status of the process that ended first, or 1.

    Raises:
        SettingsError: A port is taken, the database does not answer, or the checkout has no process file.
    """
    procfile = stack.root / PROCFILE
    if not procfile.is_file():
        raise SettingsError(f"there is no {PROCFILE} in {stack.root}", "Run from a checkout that has it.")
    _require_free(stack)
    if stack.postgres:
        _require_database(stack.postgres)
    signing_key(keys_of(stack.root))  # a service without a key to trust would not start
    environment = environment_of(stack)
    write_environment(stack.folder / "environment", environment)
    manager = _Together(lambda: _announce(stack, environment, say))
    everything = {**os.environ, **environment, "PATH": search_path()}
    for name, command in parse_procfile(procfile.read_text(encoding="utf-8")).processes.items():
        if name != "store" or stack.starts_store:
            manager.add_process(name, command, env=everything, cwd=str(stack.root))
    manager.loop()
    return 0 if manager.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM) else manager.returncode or 1


class _Together(Manager):
    """Ends what the processes have started too: a run of the worker is in a process group of its own."""

    def __init__(self, announce: Callable[[], None]) -> None:
        super().__init__()
        self._announce = announce
        self._others: set[psutil.Process] = set()

    def _start(self) -> None:
        super()._start()
        threading.Thread(target=self._announce, daemon=True).start()

    def terminate(self) -> None:
        if not self._terminating:
            for one in self._look_around():
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.terminate()
        super().terminate()

    def kill(self) -> None:
        # Again: something may have been started in the meantime.
        for one in self._others | self._look_around():
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        super().kill()

    def _look_around(self) -> set[psutil.Process]:
        groups = {entry["pid"] for entry in self._processes.values() if entry.get("pid")}
        relays = {entry["process"].pid for entry in self._processes.values() if "process" in entry}
        family = psutil.Process().children(recursive=True)
        self._others |= {one for one in family if one.pid not in relays and _group(one) not in groups}
        return self._others


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def _announce(stack: Stack, environment: dict[str, str], say: Say) -> None:
    api, service = environment["PREFECT_API_URL"], f"http://{HOST}:{stack.service_port}"
    late = wait_for([f"{api}/health", f"{service}/healthz", *environment["STACK_STORE_URLS"].split()], _READY_SECONDS)
    if not late and not _worker_at_work(api, _READY_SECONDS):
        late = ["the worker"]
    if late:
        say(f"not ready after {_READY_SECONDS:.0f} s: {', '.join(late)}")
        return
    lines = {
        "Prefect, runs and schedules": api.removesuffix("/api"),
        "service, OpenAPI": f"{service}/openapi.json",
        "object store": environment[STORE_VARIABLE]
        + (f" at {environment['AWS_ENDPOINT_URL']}" if stack.starts_store else ""),
        "another shell": f"set -a; . {stack.folder.relative_to(stack.root)}/environment; set +a",
        "end": "Ctrl-C",
    }
    say("ready\n" + "\n".join(f"  {title:<28} {text}" for title, text in lines.items()))


def _worker_at_work(api: str, seconds: float) -> bool:
    """Whether, in time, a worker has told the server that it is there: by then the schedules are registered."""
    request = urllib.request.Request(
        f"{api}/work_pools/{POOL}/workers/filter",
        data=b"{}",
        headers={"Content-Type": "application/json"},
        method="POST",
    )
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(request, timeout=2) as answer:
            if any(worker.get("status") == "ONLINE" for worker in json.load(answer)):
                return True
        time.sleep(0.5)
    return False


def _require_free(stack: Stack) -> None:
    wanted = [("the service", stack.service_port, "--port"), ("Prefect", stack.prefect_port, "--prefect-port")]
    if stack.starts_store:
        wanted.append(("the object store", stack.store_port, "--store-port"))
        wanted.append(("the object store's gRPC", stack.store_port + GRPC, "--store-port"))
    seen: set[int] = set()
    for what, port, option in wanted:
        if port in seen or not is_free(port):
            raise SettingsError(
                f"port {port} of {what} is taken", f"End what listens there, or choose another with {option}."
            )
        seen.add(port)


def _require_database(address: str) -> None:
    """Refuse an address of another form, or where nobody listens; a password in it is never shown."""
    parts = urlsplit(address)
    if parts.scheme not in ("postgresql", "postgres", "postgresql+asyncpg") or not parts.hostname:
        raise SettingsError(
            "--postgres is no address of a database", "Write it as postgresql://user:password@host:5432/database."
        )
    place = (parts.hostname, parts.port or 5432)
    try:
        socket.create_connection(place, timeout=5).close()
    except OSError as error:
        raise SettingsError(
            f"no PostgreSQL answers at {place[0]}:{place[1]}: {error.strerror or error}",
            "Start it, or leave --postgres away: SQLite then.",
        ) from None
