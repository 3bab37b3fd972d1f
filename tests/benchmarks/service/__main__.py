"""The measures of the service with the shipped MovieLens model: ``make bench-service``, about ten minutes.

``PACKAGE=folder`` measures another package. Every service is a process of its own, as ``recstill serve`` starts it, and
the load comes over loopback from the same machine: what the load generator takes is missing from the service.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from components.serving.package_folder import RECORD
from components.serving.predictor import Predictor
from components.storage.atomic import read_json
from tests.benchmarks.service.load import hey, paced_latencies
from tests.stack.released import Released
from tests.stack.running_service import ROOT, RunningService, running_service

RATE = 200
PACED = 2000
SECONDS = 20
REQUESTS = 10_000
SWAPS = 100
WARM_SWAPS = 20
ROLLBACKS = 5


def bare_latencies(package: Path, history: list[str], pause: float) -> np.ndarray:
    """Milliseconds of the ONNX session alone, asked as often as the service is."""
    predictor = Predictor(package)
    answering = predictor.answering
    feed = answering.feed([answering.parse(answering.question({"history": history}))])
    found = np.empty(PACED)
    for number in range(PACED):
        time.sleep(pause)
        started = time.perf_counter()
        predictor._session.run(["scores"], feed)
        found[number] = 1e3 * (time.perf_counter() - started)
    return found


def wait_for_version(service: RunningService, version: int) -> float:
    """Seconds until the service answers with a version."""
    started = time.monotonic()
    while service.ask("/readyz")[1]["version"] is None or service.ask("/model")[1]["version"] != version:
        if time.monotonic() - started > 60:
            raise SystemExit(f"version {version} does not go live:\n" + "".join(service.lines))
        time.sleep(0.005)
    return time.monotonic() - started


def steady(service: RunningService, package: Path, question: Path) -> dict[str, float]:
    """Latency, throughput, and the time to be back at an older version."""
    history = json.loads(question.read_text())["history"]
    url, pause = f"{service.url}/recommend", 1 / RATE
    hey(url, question, "-n", "2000", "-c", "4")
    served = np.median(paced_latencies(service.address, question.read_bytes(), PACED, pause))
    bare = np.median(bare_latencies(package, history, pause))
    constant = hey(url, question, "-z", f"{SECONDS}s", "-c", "4", "-q", str(RATE // 4))
    most = hey(url, question, "-z", "10s", "-c", "16")
    print(f"one connection, {RATE}/s: p50 {served:.3f} ms; the ONNX session alone, {RATE}/s: p50 {bare:.3f} ms")
    print(f"four connections: {constant.throughput:.0f}/s, p50 {constant.p50_ms:.1f} ms, p99 {constant.p99_ms:.1f} ms")
    return {"p50_overhead_ms": served - bare, "p99_ms": constant.p99_ms, "throughput_rps": most.throughput}


def back_and_forth(service: RunningService, released: Released) -> float:
    """Seconds from the switch of the pointer to the service's answer, the slowest of some."""
    return max(wait_for_version(service, released.next().version) for _ in range(ROLLBACKS))


def lost_under_swaps(service: RunningService, released: Released, question: Path) -> int:
    """Requests of many that were not answered while versions were swapped."""
    running, swaps = threading.Event(), 0
    running.set()

    def swap() -> None:
        nonlocal swaps
        while running.is_set():
            wait_for_version(service, released.next().version)
            swaps += 1

    swapper = threading.Thread(target=swap)
    swapper.start()
    found = hey(f"{service.url}/recommend", question, "-n", str(REQUESTS), "-c", "8", "-q", "125")
    running.clear()
    swapper.join()
    print(
        f"{REQUESTS} requests, {found.throughput:.0f}/s, over {swaps} swaps: p99 {found.p99_ms:.1f} ms {found.others}"
    )
    return REQUESTS - found.answered


def growth_over_swaps(service: RunningService, released: Released) -> float:
    """MiB of resident memory after many swaps, less those before."""
    for _ in range(WARM_SWAPS):
        wait_for_version(service, released.next().version)
    before = service.rss_mb()
    for _ in range(SWAPS):
        wait_for_version(service, released.next().version)
    print(f"resident memory: {before:.1f} MiB before {SWAPS} swaps, {service.rss_mb():.1f} MiB after")
    return service.rss_mb() - before


def from_event_to_serving() -> None:
    """Print seconds from the event of a new version to its first answer, and from a rollback to the older one.

    Measured by the test of the whole stack, which prints them: Postgres, Prefect server, worker, SeaweedFS.
    """
    test = "tests/stack/test_whole_stack.py::test_new_data_reach_the_users_by_themselves_and_go_back_in_five_seconds"
    print("the whole stack: some six minutes", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-s", test]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    measured = re.findall(r"^(event_to_serving_s|rollback_s)=([0-9.]+)$", done.stdout, re.MULTILINE)
    for name, value in measured:
        print(f"{name}={value}")
    if done.returncode:
        raise SystemExit(f"the test of the whole stack failed\n{done.stdout[-3000:]}")


def main() -> None:
    """Measure everything, and print it as name=value."""
    package = Path(os.environ.get("PACKAGE") or ROOT / "artifacts" / "movielens" / "package").resolve()
    if not (package / RECORD).is_file():
        raise SystemExit(f"{package} is no package: run `make run` first, or name one with PACKAGE=folder")
    golden = read_json(package / "golden.json")["requests"]
    history = max((request["history"] for request in golden), key=len)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        question = folder / "question.json"
        question.write_text(json.dumps({"history": history, "k": 10}))
        name = read_json(package / RECORD)["name"]
        released = Released(folder, name, package, package)
        released.point(1)
        with running_service(name, folder=folder) as service:
            found |= steady(service, package, question)
            found["rollback_pick_up_s"] = back_and_forth(service, released)
        with running_service(name, "--poll", "0.05", folder=folder) as service:
            found["lost_requests"] = lost_under_swaps(service, released, question)
            found["rss_growth_mb"] = growth_over_swaps(service, released)
    for measure, value in found.items():
        print(f"{measure}={value:.4g}", flush=True)
    from_event_to_serving()


if __name__ == "__main__":
    main()
