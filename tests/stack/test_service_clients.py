"""The service against clients that are slow, rude, hostile, or stopped in the middle; a real process on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from tests.stack.running_service import RunningService, running_service
from tests.unit.serving.conftest import artifacts, content, package

__all__ = ["artifacts", "content", "package"]

QUESTION = {"history": ["1"], "k": 5}


@pytest.fixture(scope="module")
def service(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with running_service("--package", str(package), folder=tmp_path_factory.mktemp("serving")) as running:
        yield running


def raw(service: RunningService, sent: bytes, seconds: float = 20) -> bytes:
    """Everything that comes back until the service closes."""
    with socket.create_connection(service.address, timeout=seconds) as connection:
        connection.sendall(sent)
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


def request(body: bytes, *headers: str) -> bytes:
    lines = ["POST /recommend HTTP/1.1", "Host: x", "Content-Type: application/json", *headers]
    if not any(line.lower().startswith("content-length") for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_its_own_description_holds_whatever_is_sent(service: RunningService) -> None:
    schema = schemathesis.openapi.from_url(f"{service.url}/openapi.json")
    checked: set[str] = set()
    for operation in schema.get_all_operations():
        found = operation.ok()

        @settings(
            max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
        )
        def check(case: schemathesis.Case) -> None:
            case.call_and_validate()

        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            if mode is schemathesis.GenerationMode.NEGATIVE and found.method == "get":
                continue  # Nothing can be wrong about them but the method, which the other mode tries.
            strategy = found.as_strategy(generation_mode=mode)
            from hypothesis import given

            given(case=strategy)(check)()
        checked.add(found.path)
    assert checked >= {"/recommend", "/recommend/batch", "/model", "/healthz", "/readyz", "/metrics"}
    assert service.metric('recstill_requests_total{endpoint="recommend",role="live",version="tiny"}') > 50
    assert service.metric('recstill_refused_requests_total{reason="invalid_request"}') > 50
    assert service.process.poll() is None
    assert not [line for line in service.lines if "Traceback" in line or "Exception" in line]


def test_a_thousand_slow_clients_keep_nobody_from_being_answered(service: RunningService) -> None:
    """A third never finishes its headers, a third its body, a third says nothing; meanwhile others are served."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4000) if hard > 0 else 4000, hard))
    beginnings = (b"POST /recommend HTTP/1.1\r\nHost: x\r\nX-Slow: ", request(b"{", "Content-Length: 1000"), b"")
    ended: list[bytes] = []

    async def slow(beginning: bytes) -> None:
        reader, writer = await asyncio.open_connection(*service.address)
        writer.write(beginning)

        async def drip() -> None:
            while True:
                await asyncio.sleep(1)
                if beginning:
                    writer.write(b" ")

        dripping = asyncio.create_task(drip())
        try:
            ended.append(await reader.read())
        except ConnectionError:
            ended.append(b"reset")
        finally:
            dripping.cancel()
            writer.close()

    async def everything() -> float:
        crowd = [asyncio.create_task(slow(beginnings[number % 3])) for number in range(1000)]
        await asyncio.sleep(1.5)
        slowest = 0.0
        for _ in range(200):
            started = time.perf_counter()
            status, _ = await asyncio.to_thread(service.ask, "/recommend", QUESTION)
            slowest = max(slowest, time.perf_counter() - started)
            assert status == 200
        assert not all(task.done() for task in crowd), "the crowd was gone before anybody else was served"
        await asyncio.wait_for(asyncio.gather(*crowd), 30)
        return slowest

    try:
        slowest = asyncio.run(everything())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert slowest < 1
    assert len(ended) == 1000
    assert sum(answer.startswith(b"HTTP/1.1 408 ") and b'"reason"' in answer for answer in ended) >= 600
    assert service.ask("/readyz")[0] == 200
    assert service.metric('recstill_refused_requests_total{reason="too_slow"}') >= 1000
    assert len(list(Path(f"/proc/{service.process.pid}/fd").iterdir())) < 100


def test_more_connections_than_open_files_push_out_who_waits_longest(package: Path, tmp_path: Path) -> None:
    few = ("prlimit", "--nofile=200:200")
    with running_service("--package", str(package), folder=tmp_path, under=few) as service:
        crowd = [socket.create_connection(service.address, timeout=20) for _ in range(400)]
        for connection in crowd:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"POST /recommend HTTP/1.1\r\n")
        assert [service.ask("/recommend", QUESTION)[0] for _ in range(20)] == [200] * 20
        assert service.metric('recstill_refused_requests_total{reason="too_many_connections"}') >= 250
        for connection in crowd:
            connection.close()
        assert not any("Traceback" in line for line in service.lines)


def test_blank_lines_before_a_request_buy_no_time(service: RunningService) -> None:
    with socket.create_connection(service.address, timeout=20) as connection:
        started = time.monotonic()
        connection.settimeout(0.5)
        while time.monotonic() - started < 15:
            try:
                connection.sendall(b"\r\n")
                if not connection.recv(100):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert time.monotonic() - started < 9


def test_headers_have_a_size(service: RunningService) -> None:
    assert raw(service, b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 40_000).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "sent", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"PUT / HTTP/9.9\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_http_is_refused(service: RunningService, sent: bytes) -> None:
    assert raw(service, sent).startswith(b"HTTP/1.1 400 ")


def test_a_huge_body_is_refused_before_it_is_read(service: RunningService) -> None:
    before = service.rss_mb()
    with socket.create_connection(service.address, timeout=20) as connection:
        connection.sendall(request(b"", "Content-Length: 100000000000"))
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")
        # Whoever goes on sending is cut off.
        with pytest.raises(ConnectionError):
            for _ in range(200):
                connection.sendall(b"x" * (1 << 20))
                time.sleep(0.01)
    assert service.rss_mb() < before + 30


def test_a_client_that_takes_no_answer_is_cut_off(service: RunningService) -> None:
    """It asks for megabytes, and never reads: the service does not keep them for it."""
    question = json.dumps({"requests": [{"k": 48}] * 64}).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(service.address)
        connection.sendall(request(question).replace(b"/recommend", b"/recommend/batch") * 32)
        _, status = time.sleep(5), service.ask("/recommend", QUESTION)[0]
        assert status == 200
        connection.sendall(b"\r\n")
        with pytest.raises(ConnectionError):
            for _ in range(20):
                time.sleep(1)
                connection.sendall(b"\r\n")


def test_requests_do_not_pile_up_on_a_connection(service: RunningService) -> None:
    before = service.rss_mb()
    with socket.create_connection(service.address, timeout=20) as connection, pytest.raises(ConnectionError):
        for _ in range(2000):
            connection.sendall(request(b"{}") * 1000)
    assert service.rss_mb() < before + 30
    assert service.ask("/readyz")[0] == 200


def test_pipelined_requests_are_answered_in_their_order(service: RunningService) -> None:
    found = raw(
        service,
        b"".join(request(json.dumps({"k": k}).encode()) for k in (1, 2, 3))
        + b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n",
    )
    bodies = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in found.split(b"HTTP/1.1 200 OK\r\n")[1:]]
    assert [len(body["recommendations"]) for body in bodies[:3]] == [1, 2, 3]
    assert bodies[3] == {"healthy": True}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_the_requests_that_run(package: Path, tmp_path: Path, number: int) -> None:
    body = json.dumps(QUESTION).encode()
    with running_service("--package", str(package), folder=tmp_path) as service:
        with socket.create_connection(service.address, timeout=20) as connection:
            connection.sendall(request(b"", f"Content-Length: {len(body)}"))
            time.sleep(0.3)
            service.process.send_signal(number)
            time.sleep(0.7)
            with pytest.raises(ConnectionError):
                socket.create_connection(service.address, timeout=5)
            connection.sendall(body)
            assert connection.recv(10_000).startswith(b"HTTP/1.1 200 OK")
        assert service.process.wait(10) == 0
        service.wait_for_line("event=stopped")
        assert not any("Traceback" in line for line in service.lines)


def test_the_key_is_never_written_anywhere(package: Path, tmp_path: Path) -> None:
    key = "sesame-0c5d"
    with running_service(
        "--package", str(package), "--access-log", environment={"RECSTILL_API_KEY": key}, folder=tmp_path
    ) as service:
        assert service.ask("/recommend", QUESTION)[0] == 401
        assert service.ask("/recommend", QUESTION, {"x-api-key": key[:-1]})[0] == 401
        assert service.ask("/recommend", QUESTION, {"authorization": f"Bearer {key}"})[0] == 200
        service.wait_for_line('"POST /recommend HTTP/1.1" 200')
        assert not any(key in line for line in service.lines)


def test_many_clients_at_once_are_all_answered(service: RunningService) -> None:
    statuses: list[int] = []

    def client() -> None:
        for _ in range(50):
            statuses.append(service.ask("/recommend", QUESTION)[0])

    clients = [threading.Thread(target=client) for _ in range(16)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    assert statuses == [200] * 800
