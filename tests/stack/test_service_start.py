"""How `recstill serve` starts: at once, or patiently when nothing is live yet, or with one clear message."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.integration.conftest import S3Server
from tests.stack.released import Released
from tests.stack.running_service import ROOT, running_service
from tests.stack.test_service_swaps import wait_for_version
from tests.unit.serving.conftest import artifacts, content, package
from tests.unit.serving.test_http_following import other_package

__all__ = ["artifacts", "content", "other_package", "package"]


def serve(folder: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit status and what was written of a start that must fail."""
    known = {name: value for name, value in os.environ.items() if not name.startswith("RECSTILL_")}
    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli import main; main()", "serve", *arguments],
        cwd=folder,
        env={**known, "PYTHONPATH": str(ROOT), **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


def refused(told: tuple[int, str], *words: str) -> None:
    status, text = told
    assert status == 1
    assert text.count("error:") == 1
    assert "Traceback" not in text
    for word in words:
        assert word in text


def test_what_cannot_be_served_is_told_in_one_message(package: Path, tmp_path: Path) -> None:
    refused(serve(tmp_path), "NAME or a --package")
    refused(serve(tmp_path, "tiny", "--package", str(package)), "not both")
    refused(serve(tmp_path, "tiny"), "no key is trusted", "RECSTILL_TRUSTED_KEYS")
    refused(serve(tmp_path, "--package", str(tmp_path)), "is not a package")
    refused(serve(tmp_path, "--package", str(package), "--host", "203.0.113.1", "--port", "0"), "203.0.113.1:0")
    refused(serve(tmp_path, "tiny", RECSTILL_STORE="nowhere"), "store address")
    Released(tmp_path, "tiny", package)
    refused(serve(tmp_path, "../tiny"), "no name of a model")


def test_a_tampered_package_is_not_served(package: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(package, tmp_path / "copy"))
    (copied / "model.onnx").write_bytes(b"x" + (copied / "model.onnx").read_bytes()[1:])
    refused(serve(tmp_path, "--package", str(copied)), "model.onnx", "SHA-256")


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(package: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(serve(tmp_path, "--package", str(package), "--port", str(port)), f"127.0.0.1:{port}", "in use")


def test_it_waits_for_the_first_version(package: Path, tmp_path: Path) -> None:
    released = Released(tmp_path, "tiny", package)
    with running_service("tiny", folder=tmp_path) as service:
        service.wait_for_line("event=waiting")
        assert service.ask("/healthz")[0] == 200
        assert service.ask("/recommend", {})[0] == 503
        released.point(1)
        assert wait_for_version(service, 1) < 5


def test_a_pointer_that_names_a_missing_package_is_refused_until_it_is_there(package: Path, tmp_path: Path) -> None:
    released = Released(tmp_path, "tiny", package)
    folder = released.folder / "packages"
    folder.rename(tmp_path / "aside")
    released.point(1)
    with running_service("tiny", folder=tmp_path) as service:
        service.wait_for_line("event=refused")
        assert service.ask("/readyz")[0] == 503
        assert service.ask("/model")[1]["refusals"][0]["version"] == "tiny@v1"
        (tmp_path / "aside").rename(folder)
        assert wait_for_version(service, 1, seconds=30) < 30


def test_it_goes_on_while_an_s3_store_is_down(
    s3_server: S3Server, s3_environment: S3Server, package: Path, other_package: Path, tmp_path: Path
) -> None:
    from components.storage.s3_store import S3Store

    bucket = s3_server.new_bucket()
    released = Released(tmp_path, "tiny", package, other_package, store=S3Store(bucket, "models"))
    released.point(1)
    environment = {"RECSTILL_STORE": f"s3://{bucket}/models"}
    with running_service("tiny", environment=environment, folder=tmp_path) as service:
        wait_for_version(service, 1)
        s3_server.kill()
        try:
            service.wait_for_line("event=store_unreadable", seconds=90)
            for _ in range(20):
                status, answer = service.ask("/recommend", {"history": ["1"]})
                assert (status, answer["version"]) == (200, "tiny@v1")
            assert service.ask("/healthz")[0] == 200
        finally:
            s3_server.start()
        started = time.monotonic()
        released.point(2)
        wait_for_version(service, 2, seconds=60)
        assert time.monotonic() - started < 60
        service.wait_for_line("event=store_readable")
        assert not any("s3cr3t" in line for line in service.lines)
