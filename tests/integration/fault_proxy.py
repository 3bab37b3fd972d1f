"""A proxy between client and server that spoils some of the server's replies."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from urllib.parse import urlsplit

# What of a reply's bytes is passed on, given how many of this connection's reply were before; None hangs up.
Fault = Callable[[bytes, int], bytes | None]


def drop(data: bytes, before: int) -> bytes | None:
    """The server has done its work, and the client never hears of it."""
    return data if data.startswith(b"HTTP/1.1 100") else None


def cut(data: bytes, before: int) -> bytes | None:
    """The line breaks in the middle of a long body."""
    return data if before + len(data) < 100_000 else None


def flip(data: bytes, before: int) -> bytes | None:
    """A bit of the body changes on the way, beyond the headers."""
    return data if before < 10_000 else bytes([data[0] ^ 1]) + data[1:]


class FaultProxy:
    """Passes everything on, except that ``fault`` spoils as many pieces of replies as ``faults`` says."""

    def __init__(self, endpoint: str, fault: Fault, faults: int) -> None:
        parts = urlsplit(endpoint)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._fault, self.faults = fault, faults
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream)
                threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
                threading.Thread(target=self._replies, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(data)
        _hang_up(client, server)

    def _replies(self, client: socket.socket, server: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                shown: bytes | None = data
                if self.faults > 0:
                    shown = self._fault(data, passed)
                    if shown != data:
                        self.faults -= 1
                if shown is None:
                    break
                passed += len(data)
                client.sendall(shown)
        _hang_up(client, server)


def _hang_up(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
