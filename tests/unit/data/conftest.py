"""A local HTTP server that answers as it is told, and a small archive of the form of MovieLens."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch.core
import pytest


@dataclass
class FileServer:
    """Serves ``content``; ``plan`` says how each request is answered in turn, the last one from then on.

    Attributes:
        plan: ``whole``, ``flip`` (one byte differs), ``cut`` (ends half way), or a status code.
        requests: How many came.
    """

    address: str
    content: bytes = b""
    plan: list[str | int] = field(default_factory=lambda: ["whole"])
    requests: int = 0

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    def next_answer(self) -> str | int:
        self.requests += 1
        return self.plan[min(self.requests, len(self.plan)) - 1]


@pytest.fixture
def server() -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = state.next_answer()
            if isinstance(answer, int):
                self.send_error(answer)
                return
            body = bytearray(state.content)
            if answer == "flip":
                body[len(body) // 2] ^= 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if answer == "cut" else body)

        def log_message(self, *_: object) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state = FileServer(f"http://127.0.0.1:{httpd.server_port}/archive.zip")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield state
    httpd.shutdown()
    thread.join()
    httpd.server_close()


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of downloads."""
    monkeypatch.setenv("RECSTILL_DOWNLOADS", str(tmp_path / "downloads"))
    return tmp_path / "downloads"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which are not waited for."""
    waited: list[float] = []
    monkeypatch.setattr(pooch.core.time, "sleep", waited.append)
    return waited


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()
