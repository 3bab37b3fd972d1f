"""Who may use the store, over which line, at which hour: one request, and one error that shows no secret."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import socket
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import botocore.compat
import pytest
import torch

from components.errors import RecstillError, StorageError
from components.soft_labels.reader import SoftLabelReader
from components.storage.object_store import open_store
from components.storage.s3_store import S3Store
from tests.integration.conftest import ACCESS_KEY, SECRET_KEY, S3Server
from tests.integration.fault_proxy import FaultProxy, Message, Wire, cut, drop, flip, unavailable
from tests.integration.killed_writers import LoggedTeacher, dataset_of, write

CONTENT = b"content"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
pytestmark = pytest.mark.usefixtures("impatient")


def pass_on(request: Message, wire: Wire) -> None:
    wire.forward(request.raw)
    wire.answer(wire.reply().raw)


def refuse_quoting(request: Message, wire: Wire) -> None:
    """As servers that explain a refusal by what they were sent, and by a link that they have signed."""
    quoted = request.head.decode(errors="replace").replace("<", "&lt;").replace("&", "&amp;")
    body = (
        '<?xml version="1.0"?><Error><Code>SignatureDoesNotMatch</Code>'
        f"<Message>{quoted} https://host/bucket/key?X-Amz-Signature=0123456789abcdef</Message>"
        f"<StringToSign>{quoted}</StringToSign></Error>"
    ).encode()
    wire.answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def uses(store: S3Store, folder: Path) -> list[Callable[[], object]]:
    """Everything that a store can be asked, and a whole cache."""
    manifest_of = LoggedTeacher(folder / "asked")
    return [
        lambda: store.put("key", CONTENT, DIGEST),
        lambda: store.put_if_absent("new", CONTENT, DIGEST),
        lambda: store.get("key", DIGEST),
        lambda: store.get_to_file("key", folder / "target", DIGEST),
        lambda: store.size("key"),
        lambda: list(store.list("")),
        lambda: list(store.leftovers("")),
        lambda: store.delete("key"),
        lambda: write(store, manifest_of, dataset_of("access")),
    ]


@contextlib.contextmanager
def counted(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """The server behind a proxy that counts requests."""
    with FaultProxy(server.endpoint, pass_on, 0) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        yield proxy


def test_wrong_credentials_are_one_request_and_one_error(
    s3_environment: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_environment.new_bucket()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wr0ng")
    with counted(s3_environment, monkeypatch) as proxy:
        for use in uses(S3Store(bucket), tmp_path)[:-1]:
            before = len(proxy.requests)
            with pytest.raises(StorageError, match="refuses the credentials"):
                use()
            assert len(proxy.requests) - before == 1, proxy.requests[before:]


def test_a_clock_that_is_off_by_20_minutes_is_told(
    s3_environment: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_environment.new_bucket()
    for minutes in (20, -20):
        off = timedelta(minutes=minutes)

        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Any:
                return datetime.now(tz) + off  # noqa: B023

        true_time = botocore.compat.get_current_datetime
        with counted(s3_environment, monkeypatch) as proxy, monkeypatch.context() as shifted:
            # What this machine would sign with, and what it would compare with the server's answer.
            shifted.setattr(
                "botocore.auth.get_current_datetime",
                lambda remove_tzinfo=True: true_time(remove_tzinfo) + off,  # noqa: B023
            )
            shifted.setattr("components.storage.s3_errors.datetime", Clock)
            for use in uses(S3Store(bucket), tmp_path):
                before = len(proxy.requests)
                with pytest.raises(StorageError, match="clock is off by about 20 minutes"):
                    use()
                assert len(proxy.requests) - before <= 2


def test_https_needs_the_certificate_and_then_all_works(
    s3_environment: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_environment.new_bucket()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_environment.https_endpoint)
    for use in uses(S3Store(bucket), tmp_path)[:-1]:
        with pytest.raises(StorageError, match=r"certificate of https://127\.0\.0\.1:\d+ is not accepted") as caught:
            use()
        assert "AWS_CA_BUNDLE" in caught.value.remedy
    monkeypatch.setenv("AWS_CA_BUNDLE", str(s3_environment.certificate))
    for use in uses(S3Store(bucket), tmp_path):
        use()
    store = open_store(f"s3://{bucket}")
    teacher = LoggedTeacher(tmp_path / "asked")
    manifest = write(store, teacher, dataset_of("access"))
    SoftLabelReader(store, manifest, tmp_path / "cache").labels(torch.arange(manifest.rows))
    # Through another line the same objects are there.
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_environment.endpoint)
    assert write(open_store(f"s3://{bucket}"), teacher, dataset_of("access")) == manifest


def test_no_failure_shows_a_secret(
    s3_environment: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    bucket, shown = s3_environment.new_bucket(), io.StringIO()
    handler = logging.StreamHandler(shown)
    for name in ("components", "flows", "recstill"):
        logging.getLogger(name).addHandler(handler)
        monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)
    password, token = "p4ssw0rd-of-the-endpoint", "t0ken-of-the-session"
    failures = 0

    def fail(endpoint: str, **variables: str) -> None:
        nonlocal failures
        with monkeypatch.context() as environment:
            environment.setenv("AWS_ENDPOINT_URL", endpoint)
            for name, value in variables.items():
                environment.setenv(name, value)
            store = S3Store(bucket, read_timeout_seconds=5)
            for use in uses(store, tmp_path):
                try:
                    use()
                except RecstillError as error:
                    failures += 1
                    shown.write("".join(traceback.format_exception(error)) + str(error) + repr(error) + error.remedy)
            shown.write(store.address + repr(store))

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        fail(f"http://user:{password}@127.0.0.1:{nobody.getsockname()[1]}")
    fail(s3_environment.endpoint, AWS_SECRET_ACCESS_KEY=f"{SECRET_KEY}-wrong")
    fail(s3_environment.endpoint, AWS_SESSION_TOKEN=token)
    for fault in (refuse_quoting, unavailable, drop, cut, flip):
        with FaultProxy(s3_environment.endpoint, fault, 1_000_000) as proxy:
            fail(proxy.address, AWS_SESSION_TOKEN=token)
    printed = capfd.readouterr()
    text = shown.getvalue() + printed.out + printed.err
    assert failures > 40
    for secret in (SECRET_KEY, ACCESS_KEY, password, token, "X-Amz-Signature", "Signature=", "AWS4-HMAC-SHA256"):
        assert secret not in text
    # What was written before and between: no object holds one either.
    store = open_store(f"s3://{bucket}")
    write(store, LoggedTeacher(tmp_path / "asked"), dataset_of("access"))
    objects = [store.get(entry.key) for entry in store.list("")]
    assert len(objects) > 8
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for content in objects + files:
        assert SECRET_KEY.encode() not in content and ACCESS_KEY.encode() not in content
    with capfd.disabled():
        print(f"secrets: failures={failures} shown=0")


def test_the_command_line_takes_no_credential() -> None:
    from typer.main import get_command

    from flows.cli import app

    commands, names = [get_command(app)], set()
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        for parameter in command.params:
            names |= {parameter.name or "", *parameter.opts}
    assert len(names) > 5
    assert not [name for name in names if any(word in name for word in ("key", "secret", "token", "password", "cred"))]
