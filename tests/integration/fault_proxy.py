"""A proxy between client and server that spoils some of what passes."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from urllib.parse import urlsplit


class Message(NamedTuple):
    """A request or a reply: its first line and headers, and its body."""

    head: bytes
    body: bytes

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def raw(self) -> bytes:
        return self.head + self.body

    @property
    def half(self) -> bytes:
        return self.head + self.body[: len(self.body) // 2]

    def flipped(self, place: float = 0.5, bit: int = 0) -> Message:
        """With another bit in the byte of the body that lies as far into it as ``place`` says (0 to 1)."""
        if not self.body:
            return self
        body = bytearray(self.body)
        body[min(int(place * len(body)), len(body) - 1)] ^= 1 << bit
        return self._replace(body=bytes(body))


class HangUpError(Exception):
    """The proxy closes both connections."""


class Wire(NamedTuple):
    """What a fault can do with a request."""

    forward: Callable[[bytes], None]
    """Sends bytes to the server."""
    reply: Callable[[], Message]
    """Waits for the server's reply."""
    answer: Callable[[bytes], None]
    """Sends bytes to the client."""
    wait: Callable[[], None]
    """Does nothing until the client has gone."""


Fault = Callable[[Message, Wire], None]


def drop(request: Message, wire: Wire) -> None:
    """The server has done its work, and the client never hears of it."""
    wire.forward(request.raw)
    wire.reply()
    raise HangUpError


def cut(request: Message, wire: Wire) -> None:
    """The line breaks in the middle of a reply's body."""
    wire.forward(request.raw)
    wire.answer(wire.reply().half)
    raise HangUpError


def flip(request: Message, wire: Wire) -> None:
    """A bit of a reply's body changes on the way."""
    wire.forward(request.raw)
    wire.answer(wire.reply().flipped().raw)


def flip_at(place: float, bit: int = 0) -> Fault:
    """As :func:`flip`, at some place (0 to 1)."""

    def fault(request: Message, wire: Wire) -> None:
        wire.forward(request.raw)
        wire.answer(wire.reply().flipped(place, bit).raw)

    return fault


def unavailable(request: Message, wire: Wire) -> None:
    """Something on the way is overloaded."""
    wire.answer(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


def hang(request: Message, wire: Wire) -> None:
    """No reply ever comes."""
    wire.forward(request.raw)
    wire.reply()
    wire.wait()


def hang_within(request: Message, wire: Wire) -> None:
    """Half of a reply comes, and then nothing."""
    wire.forward(request.raw)
    wire.answer(wire.reply().half)
    wire.wait()


def flip_request(request: Message, wire: Wire) -> None:
    """A bit of what is written changes on the way."""
    wire.forward(request.flipped().raw)
    wire.answer(wire.reply().raw)


def cut_request(request: Message, wire: Wire) -> None:
    """The line breaks while the client sends."""
    wire.forward(request.half)
    raise HangUpError


class FaultProxy:
    """Passes everything on, except that ``fault`` spoils as many exchanges as ``faults`` says.

    Args:
        endpoint: Of the server, http or https.
        fault: What happens to an exchange.
        faults: How many are spoiled.
        methods: Which requests; without it all that have what the fault needs.
        certificate: For https: what the server shows, which this proxy shows as well.
        key: The certificate's private key.
    """

    def __init__(
        self,
        endpoint: str,
        fault: Fault,
        faults: int,
        *,
        methods: tuple[str, ...] = ("GET", "HEAD", "PUT", "POST", "DELETE"),
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> None:
        parts = urlsplit(endpoint)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._fault, self.faults, self._methods = fault, faults, methods
        self.requests: list[str] = []
        self._lock, self._over = threading.Lock(), threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._as_server: ssl.SSLContext | None = None
        if certificate is not None and key is not None:
            self._as_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._as_server.load_cert_chain(certificate, key)
            self._as_client = ssl.create_default_context(cafile=str(certificate))
        self.address = f"{parts.scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server: socket.socket | None = None
        with contextlib.suppress(OSError, HangUpError):
            server = socket.create_connection(self._upstream)
            if self._as_server is not None:
                client = self._as_server.wrap_socket(client, server_side=True)
                server = self._as_client.wrap_socket(server, server_hostname="127.0.0.1")
            self._exchanges(client, server)
        for end in (client, server):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _exchanges(self, client: socket.socket, server: socket.socket) -> None:
        from_client, from_server = client.makefile("rb"), server.makefile("rb")

        def wait() -> None:
            client.settimeout(0.05)
            while not self._over.is_set():
                with contextlib.suppress(TimeoutError):
                    if not client.recv(1):
                        break
            raise HangUpError

        while True:
            head = _head(from_client)
            if b"expect: 100-continue" in head.lower():
                # Answered here, so that every exchange is one request and one reply.
                head = re.sub(rb"(?i)expect: 100-continue\r\n", b"", head)
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            request = Message(*_with_body(head, from_client, sized=True))
            with self._lock:
                self.requests.append(f"{request.method} {request.target}")
                spoiled = self.faults > 0 and request.method in self._methods
                self.faults -= spoiled
            wire = Wire(
                server.sendall,
                lambda request=request: Message(*_with_body(_head(from_server), from_server, request.method != "HEAD")),  # type: ignore[misc]
                client.sendall,
                wait,
            )
            if spoiled:
                self._fault(request, wire)
            else:
                wire.forward(request.raw)
                wire.answer(wire.reply().raw)


def _head(stream: object) -> bytes:
    """First line and headers, with the empty line behind them."""
    lines = []
    while True:
        line = stream.readline()  # type: ignore[attr-defined]
        if not line:
            raise HangUpError
        lines.append(line)
        if line == b"\r\n":
            return b"".join(lines)


def _size(line: bytes) -> int:
    """Bytes of the next piece of a body that comes in pieces."""
    try:
        return int(line.split(b";")[0], 16)
    except ValueError:
        # The client has given up in the middle.
        raise HangUpError from None


def _with_body(head: bytes, stream: object, sized: bool) -> tuple[bytes, bytes]:
    """A head and the body that follows it, which is sent with its length from here on."""
    read = stream.read  # type: ignore[attr-defined]
    if not sized or re.match(rb"HTTP/1\.1 (1..|204|304)", head):
        return head, b""
    if re.search(rb"(?i)\r\ntransfer-encoding: chunked\r\n", head):
        pieces = []
        while size := _size(stream.readline()):  # type: ignore[attr-defined]
            pieces.append(read(size))
            read(2)
        _trailers = _head(stream)
        body = b"".join(pieces)
        length = b"\r\nContent-Length: %d\r\n" % len(body)
        return re.sub(rb"(?i)\r\ntransfer-encoding: chunked\r\n", length, head), body
    found = re.search(rb"(?i)\r\ncontent-length: (\d+)\r\n", head)
    return head, read(int(found[1])) if found else b""
