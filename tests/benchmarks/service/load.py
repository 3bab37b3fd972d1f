"""Load on the service, from `hey` and from a client on one connection, and what came of it."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np


class HeyResult(NamedTuple):
    """What `hey` saw.

    Attributes:
        p50_ms: Median latency.
        p99_ms: 99th percentile.
        throughput: Requests a second.
        answered: Requests answered with status 200.
        others: All other outcomes, as it tells them.
    """

    p50_ms: float
    p99_ms: float
    throughput: float
    answered: int
    others: list[str]


def hey(url: str, body: Path, *arguments: str) -> HeyResult:
    """Run `hey ARGUMENTS` with a JSON body."""
    command = shutil.which("hey")
    if command is None:
        raise SystemExit("this needs the load generator `hey`: apt-get install hey")
    fixed = ("-m", "POST", "-T", "application/json", "-D", str(body), url)
    told = subprocess.run([command, *arguments, *fixed], capture_output=True, text=True, check=True).stdout
    statuses = dict(re.findall(r"^\s+\[(\d+)\]\s+(\d+) (?:responses|.*)$", told.partition("Status code")[2], re.M))
    answered = int(statuses.pop("200", 0))
    percentiles = {int(share): 1e3 * float(time) for share, time in re.findall(r"(\d+)% in ([\d.]+) secs", told)}
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", told)[0])
    others = [f"status {status}: {count}" for status, count in statuses.items()]
    return HeyResult(
        percentiles.get(50, float("nan")), percentiles.get(99, float("nan")), rate, answered, others + _errors(told)
    )


def paced_latencies(address: tuple[str, int], body: bytes, requests: int, pause: float) -> np.ndarray:
    """Milliseconds from the first byte sent to the last one received, ``(requests,)``, on one connection."""
    head = (
        f"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    asked = head.encode() + body
    found = np.empty(requests)
    with socket.create_connection(address, timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(requests):
            time.sleep(pause)
            started = time.perf_counter()
            connection.sendall(asked)
            _read_answer(connection)
            found[number] = 1e3 * (time.perf_counter() - started)
    return found


def _read_answer(connection: socket.socket) -> None:
    found = b""
    while b"\r\n\r\n" not in found:
        found += connection.recv(65536)
    head, _, rest = found.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"the service answers {found[:300]!r}")
    missing = int(re.findall(rb"content-length: (\d+)", head)[0]) - len(rest)
    while missing > 0:
        missing -= len(connection.recv(65536))


def _errors(told: str) -> list[str]:
    return [line.strip() for line in told.partition("Error distribution")[2].splitlines()[1:] if line.strip()]
