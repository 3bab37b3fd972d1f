"""Swaps of the live version under load: nothing is lost, memory does not grow, and a tampered package is refused."""

from __future__ import annotations

import http.client
import json
import threading
import time
from pathlib import Path

from tests.stack.released import Released
from tests.stack.running_service import RunningService, running_service
from tests.unit.serving.conftest import artifacts, content, package
from tests.unit.serving.test_http_following import other_package

__all__ = ["artifacts", "content", "other_package", "package"]

REQUESTS = 10_000
CLIENTS = 4


def wait_for_version(service: RunningService, version: int, seconds: float = 20) -> float:
    """How long it took until that version was live."""
    started = time.monotonic()
    while service.ask("/readyz")[1]["version"] != f"tiny@v{version}":
        assert time.monotonic() - started < seconds, "".join(service.lines)
        time.sleep(0.01)
    return time.monotonic() - started


def test_no_request_is_lost_while_versions_are_swapped(package: Path, other_package: Path, tmp_path: Path) -> None:
    released = Released(tmp_path, "tiny", package, other_package)
    released.point(1)
    body = json.dumps({"history": ["1", "2"], "k": 5})
    outcomes: list[str] = []

    def client(service: RunningService) -> None:
        connection = http.client.HTTPConnection(*service.address, timeout=30)
        for _ in range(REQUESTS // CLIENTS):
            try:
                connection.request("POST", "/recommend", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                found = json.loads(answer.read())
                outcomes.append(found["version"] if answer.status == 200 else f"status {answer.status}")
            except (OSError, http.client.HTTPException) as error:
                outcomes.append(f"lost: {error!r}")

    with running_service("tiny", "--poll", "0.05", folder=tmp_path) as service:
        clients = [threading.Thread(target=client, args=(service,)) for _ in range(CLIENTS)]
        for one in clients:
            one.start()
        swaps = 0
        while any(one.is_alive() for one in clients):
            wait_for_version(service, released.next().version)
            swaps += 1
    assert swaps >= 5
    assert len(outcomes) == REQUESTS
    assert set(outcomes) == {"tiny@v1", "tiny@v2"}


def test_memory_stays_flat_over_a_hundred_swaps(package: Path, other_package: Path, tmp_path: Path) -> None:
    released = Released(tmp_path, "tiny", package, other_package)
    released.point(1)
    with running_service("tiny", "--poll", "0.05", folder=tmp_path) as service:
        for _ in range(20):
            wait_for_version(service, released.next().version)
        before = service.rss_mb()
        for _ in range(100):
            wait_for_version(service, released.next().version)
        grown = service.rss_mb() - before
        assert service.metric("recstill_reloads_total") == 121
        assert len(list(Path(f"/proc/{service.process.pid}/fd").iterdir())) < 60
        assert len(list(Path(f"/proc/{service.process.pid}/task").iterdir())) < 60
    assert grown < 5


def test_a_tampered_package_is_refused_and_a_rollback_is_quick(
    package: Path, other_package: Path, tmp_path: Path
) -> None:
    released = Released(tmp_path, "tiny", package, other_package)
    with running_service("tiny", folder=tmp_path) as service:
        assert service.ask("/readyz")[0] == 503
        released.point(1)
        wait_for_version(service, 1)
        model = released.folder / released.versions[1].key("model.onnx")
        sound = model.read_bytes()
        model.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
        released.point(2)
        assert "model.onnx" in service.wait_for_line("event=refused")
        status, answer = service.ask("/recommend", {"history": ["1"]})
        assert (status, answer["version"]) == (200, "tiny@v1")
        assert service.ask("/model")[1]["refusals"][0]["version"] == "tiny@v2"
        assert service.metric('recstill_refusals_total{role="live"}') == 1
        model.write_bytes(sound)
        released.point(1)
        released.point(2)
        assert wait_for_version(service, 2) < 5
        released.point(1)
        assert wait_for_version(service, 1) < 5
