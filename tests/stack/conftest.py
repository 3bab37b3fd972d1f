"""The real servers of the stack, once a session: Postgres of the distribution, Prefect on it, a worker, SeaweedFS."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.end_to_end.conftest import Checkout, new_checkout
from tests.integration.conftest import impatient, s3_environment, s3_server

__all__ = ["fresh", "impatient", "s3_environment", "s3_server"]  # fixtures

BIN = Path(sys.executable).parent
START_SECONDS = 120.0


@dataclass(frozen=True)
class PrefectServer:
    """A running server.

    Attributes:
        api_url: For ``PREFECT_API_URL``.
        environment: What its clients and workers need to find it, beside the environment of the tests.
        log: What it writes.
    """

    api_url: str
    environment: dict[str, str]
    log: Path


class Worker:
    """A worker of a pool, in a process group of its own."""

    def __init__(self, pool: str, folder: Path, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        command = [str(BIN / "prefect"), "worker", "start", "--pool", pool, "--type", "process"]
        with log.open("a") as stream:
            self._process = subprocess.Popen(
                command, cwd=folder, env=dict(environment), stdout=stream, stderr=stream, start_new_session=True
            )

    def stop(self) -> None:
        end(self._process)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    """Whether something answers there with a good status."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


def wait_until(condition: Callable[[], object], seconds: float, what: Callable[[], str] = lambda: "") -> object:
    """The first true value of a condition; fails the test when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.2)
    pytest.fail(f"not within {seconds:.0f} s\n{what()}")


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str], patience: float = 15.0) -> None:
    """End a process and all that it has started: politely, then at once."""
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


@pytest.fixture(scope="session")
def postgres(postgres_server: str) -> str:
    """The address of the Prefect server's database, without the driver's name."""
    return new_database(postgres_server, "prefect")


def new_database(server: str, name: str) -> str:
    """Make an empty database on a server; its address."""
    createdb = sorted(Path("/usr/lib/postgresql").glob("*/bin/createdb"))[-1]
    _run(str(createdb), f"--maintenance-db={server}/postgres", name)
    return f"{server}/{name}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL of its own: ``postgresql://user@host:port``."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    # It refuses to run as root.
    user: list[str] = []
    if os.geteuid() == 0:
        if shutil.which("runuser") is None:
            pytest.skip("PostgreSQL does not run as root, and runuser is not installed")
        user = ["runuser", "-u", "postgres", "--"]
    folder = Path(tempfile.mkdtemp(prefix="recstill-postgres-"))
    data, port, binaries = folder / "data", free_port(), programs[-1].parent
    try:
        if user:
            shutil.chown(folder, "postgres", "postgres")
        _run(*user, str(binaries / "initdb"), "-D", str(data), "-U", "recstill", "--auth=trust", "-E", "UTF8", "-N")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        control = (*user, str(binaries / "pg_ctl"), "-D", str(data))
        _run(*control, "-w", "-l", str(folder / "log.txt"), "-o", options, "start")
        try:
            yield f"postgresql://recstill@127.0.0.1:{port}"
        finally:
            _run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_server(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A real Prefect server on Postgres."""
    folder, port = tmp_path_factory.mktemp("prefect-server"), free_port()
    api_url, log = f"http://127.0.0.1:{port}/api", folder / "log.txt"
    client = {
        "PREFECT_API_URL": api_url,
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    database = postgres.replace("postgresql://", "postgresql+asyncpg://")
    with log.open("w") as stream:
        process = subprocess.Popen(
            [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"],
            cwd=folder,
            env={
                **_talkative(),
                **client,
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
                "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            },
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
    try:
        wait_until(
            lambda: process.poll() is not None or answers(f"{api_url}/health"),
            START_SECONDS,
            lambda: log.read_text()[-3000:],
        )
        assert process.poll() is None, log.read_text()[-3000:]
        yield PrefectServer(api_url, client, log)
    finally:
        end(process)


@pytest.fixture
def prefect_worker(prefect_server: PrefectServer, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts workers: ``prefect_worker(pool, folder, environment)``; each ends with the test."""
    started: list[Worker] = []

    def start(pool: str, folder: Path, environment: Mapping[str, str] | None = None) -> Worker:
        complete = {
            **_talkative(),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            **prefect_server.environment,
            **(environment or {}),
        }
        started.append(Worker(pool, folder, complete, tmp_path / f"worker-{len(started)}.txt"))
        return started[-1]

    yield start
    for worker in started:
        worker.stop()


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    """A checkout in which nothing has run."""
    return new_checkout(tmp_path)


def _talkative() -> dict[str, str]:
    """This environment, without the quiet that commands under test may have asked Prefect for in this process."""
    quiet = ("PREFECT_LOGGING_LEVEL", "PREFECT_SERVER_LOGGING_LEVEL")
    return {name: value for name, value in os.environ.items() if name not in quiet}


def _run(*command: str) -> None:
    # From a folder that every account may enter; a server that is started keeps no pipe of ours open.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run(command, cwd="/", stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
        output.seek(0)
        assert done.returncode == 0, f"{' '.join(command)}\n{output.read().decode(errors='replace')}"
