"""`recstill up`: everything starts, is told where it is, and ends; and SeaweedFS as the compose file starts it."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import psutil
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.end_to_end.conftest import Checkout
from tests.integration.conftest import _free_ports
from tests.stack.conftest import BIN, answers, end, free_port, new_database, wait_until
from tests.stage_modules import ROOT


class Up:
    """A stack that `recstill up` has started."""

    def __init__(self, checkout: Checkout, log: Path, *options: str) -> None:
        self.checkout, self.log = checkout, log
        self.service, self.prefect = free_port(), free_port()
        (self.store,) = _free_ports(1)
        ports = ("--port", str(self.service), "--prefect-port", str(self.prefect), "--store-port", str(self.store))
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                ["recstill", "up", "synthetic", *ports, *options],
                cwd=checkout.root,
                env={name: value for name, value in checkout.environment.items() if "LOGGING_LEVEL" not in name},
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.log.read_text()

    def wait_ready(self) -> None:
        wait_until(lambda: "ready\n" in self.said() or self.process.poll() is not None, 120, self.said)
        assert self.process.poll() is None, self.said()

    def environment(self) -> dict[str, str]:
        command = "set -a; . .recstill/stack/environment; env -0"
        printed = subprocess.run(
            ["sh", "-c", command], cwd=self.checkout.root, env={}, capture_output=True, text=True, check=True
        ).stdout
        return dict(line.split("=", 1) for line in printed.split("\0") if line)


@pytest.fixture
def ended() -> Iterator[list[Up]]:
    started: list[Up] = []
    yield started
    for one in started:
        if one.process.poll() is None:
            end(one.process)


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "kill"])
def test_up_starts_everything_and_ends_everything(
    fresh: Checkout, tmp_path: Path, ended: list[Up], number: signal.Signals
) -> None:
    up = Up(fresh, tmp_path / "up.txt")
    ended.append(up)
    up.wait_ready()
    api = f"http://127.0.0.1:{up.prefect}"
    for address in (f"{api}/api/health", f"http://127.0.0.1:{up.service}/healthz"):
        assert answers(address)
    announced = re.findall(r"^  \S.*  (http://\S+)$", up.said(), flags=re.MULTILINE)
    assert len(announced) == 2 and all(map(answers, announced)), up.said()
    # What another shell is told is enough to work with it, and nobody else can read it.
    path = fresh.root / ".recstill/stack/environment"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    told = up.environment()
    assert "retrain/synthetic" in fresh.succeed("recstill", "schedule", "--list", **told)
    assert told["RECSTILL_STORE"] == "s3://recstill" and "0 unreachable" in fresh.succeed(
        "recstill", "store", "gc", "--dry-run", **told
    )
    # A second stack is refused while this one is there.
    refused = fresh.run("recstill", "up", "synthetic", "--prefect-port", str(up.prefect), "--port", str(free_port()))
    assert refused.returncode == 1 and f"port {up.prefect} of Prefect is taken" in refused.stderr
    children = family(up.process)
    assert len(children) >= 8
    # Runs and server say what they do: the quiet of a command for one run is not handed down to them.
    assert not [child for child in children if "PREFECT_LOGGING_LEVEL" in child.environ()]
    begun = time.monotonic()
    up.process.send_signal(number)
    assert up.process.wait(30) == 0
    assert time.monotonic() - begun < 15
    assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
    for port in (up.service, up.prefect, up.store):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_when_one_process_ends_all_end_and_the_status_tells(fresh: Checkout, tmp_path: Path, ended: list[Up]) -> None:
    up = Up(fresh, tmp_path / "up.txt")
    ended.append(up)
    up.wait_ready()
    (service,) = [
        child for child in family(up.process) if "serve" in child.cmdline() and "synthetic" in child.cmdline()
    ]
    children = family(up.process)
    service.kill()
    assert up.process.wait(30) not in (0, None)
    assert "service stopped" in up.said()
    assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []


def test_up_keeps_its_records_in_postgres_and_takes_the_store_that_is_named(
    fresh: Checkout, tmp_path: Path, ended: list[Up], postgres_server: str
) -> None:
    named = Checkout(fresh.root, {**fresh.environment, "RECSTILL_STORE": f"file://{tmp_path}/store"})
    up = Up(named, tmp_path / "up.txt", "--postgres", new_database(postgres_server, "up"))
    ended.append(up)
    up.wait_ready()
    assert "store started" not in up.said() and f"file://{tmp_path}/store" in up.said()
    assert not list((fresh.root / ".recstill/stack/prefect").glob("*.db"))
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(30) == 0


def test_the_store_of_the_compose_file_asks_for_a_key_and_shows_s3_alone(tmp_path: Path) -> None:
    command = yaml.safe_load((ROOT / "infra/compose.yaml").read_text())["services"]["store"]["command"]
    port, master, volume, filer = _free_ports(4)
    changed = {"-dir": str(tmp_path / "data"), "-s3.port": str(port)}
    (tmp_path / "data").mkdir()
    flags = (word.partition("=") for word in command)
    words = [
        f"{flag}={changed[flag]}" if flag in changed else f"{flag}{equals}{value}" for flag, equals, value in flags
    ]
    inner = [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "someone", "AWS_SECRET_ACCESS_KEY": "a-long-secret-of-a-test"}
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [str(BIN / "weed"), *words, *inner],
            cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthz"), 60, (tmp_path / "log.txt").read_text)
        wait_until(lambda: answers(f"http://127.0.0.1:{master}/dir/assign"), 60, (tmp_path / "log.txt").read_text)

        def client(secret: str):
            return boto3.client(
                "s3",
                endpoint_url=f"http://127.0.0.1:{port}",
                aws_access_key_id="someone",
                aws_secret_access_key=secret,
                region_name="us-east-1",
                config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
            )

        client("a-long-secret-of-a-test").create_bucket(Bucket="recstill")
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            client("another").list_buckets()
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/recstill", timeout=5)
        everywhere = {
            one.laddr.port
            for one in psutil.Process(process.pid).net_connections("tcp")
            if one.status == psutil.CONN_LISTEN and not one.laddr.ip.startswith("127.")
        }
        assert everywhere == {port, port + 10_000}  # S3, and the gRPC of S3, which the network does not let through
    finally:
        end(process, patience=1)
