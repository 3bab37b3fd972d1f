"""`recstill serve` as a user starts it: a process of its own, on a free port."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_START = "from flows.cli import main; main()"


@dataclass
class RunningService:
    """A service process.

    Attributes:
        process: The process.
        url: Where it listens.
        lines: What it has written to standard error so far.
    """

    process: subprocess.Popen[str]
    url: str = ""
    lines: list[str] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host, int(port)

    def ask(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON of an answer; a POST when there is a body."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def metric(self, line: str) -> float:
        """The value of a sample, by its name with labels; 0 when there is none."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            samples = dict(row.rsplit(" ", 1) for row in answer.read().decode().splitlines() if row[:1] != "#")
        return float(samples.get(line, 0))

    def rss_mb(self) -> float:
        """Resident memory."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def wait_for_line(self, part: str, seconds: float = 30) -> str:
        """The first line of its log that holds ``part``."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = next((line for line in self.lines if part in line), None)
            if found is not None:
                return found
            if self.process.poll() is not None and not any(part in line for line in self.lines):
                break
            time.sleep(0.02)
        raise AssertionError(f"no {part!r} in:\n" + "".join(self.lines))


@contextmanager
def running_service(
    *arguments: str, environment: Mapping[str, str] | None = None, folder: Path, under: Sequence[str] = ()
) -> Iterator[RunningService]:
    """``recstill serve ARGUMENTS`` in ``folder`` until the block ends; it has to end by itself then, in good order.

    ``under`` is a command that runs it, such as ``prlimit``.
    """
    known = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    unset = ("RECSTILL_API_KEY", "RECSTILL_STORE", "RECSTILL_TRUSTED_KEYS", "RECSTILL_SIGNING_KEY")
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    process = subprocess.Popen(
        [*under, sys.executable, "-c", _START, "serve", *arguments, "--port", "0"],
        env={**inherited, **known, **(environment or {})},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    service = RunningService(process)
    reader = threading.Thread(target=lambda: service.lines.extend(process.stderr or ()), daemon=True)
    reader.start()
    try:
        service.url = service.wait_for_line("event=listening").rpartition("url=")[2].strip()
        _wait_until_it_answers(service)
        yield service
        if process.poll() is None:
            process.terminate()
            assert process.wait(40) == 0, "".join(service.lines)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(5)


def _wait_until_it_answers(service: RunningService) -> None:
    for _ in range(200):
        try:
            service.ask("/healthz")
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("".join(service.lines))
