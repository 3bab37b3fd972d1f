"""Deadlines and bounds for clients that are slow, by accident or not: nobody holds a connection by doing nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from components.serving.limits import Limits

Count = Callable[[str], None]
_SAID = {408: "Request Timeout", 431: "Request Header Fields Too Large"}


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a deadline for each thing that a client has to do.

    The headers and the body of a request have to come, and an answer has to be taken, in time; headers have a size,
    and so has what is sent after an answer that did not wait for it. uvicorn itself bounds none of these.

    Attributes:
        limits: The bounds.
        counts: One function: it is told a word for each connection that is ended here.
        waiting: Connections on which no request is being answered, oldest first.
    """

    limits: ClassVar[Limits]
    counts: ClassVar[tuple[Count]]
    waiting: ClassVar[dict[PatientProtocol, None]]

    _timer: asyncio.TimerHandle | None = None
    _looking: asyncio.TimerHandle | None = None
    _paused: float | None = None
    _in_headers = False
    _in_body = False
    _header_bytes = 0
    _ignored_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connects: it has to begin in time, and may push out who has waited longest."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections and self.waiting:
            next(iter(self.waiting))._end(None, "too_many_connections")
        self.waiting[self] = None
        self._expect(self.limits.header_seconds)
        self._looking = self.loop.call_later(self.limits.write_seconds / 4, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and so are its deadlines."""
        self._expect(None)
        if self._looking is not None:
            self._looking.cancel()
        self.waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; a few line breaks before it are no reason to wait any longer."""
        if self._timer is None and not self._in_body:
            self._expect(self.limits.header_seconds)
        if not self._in_body:
            self._header_bytes += len(data)  # Begins anew where headers end.
        elif self.cycle.response_complete:
            self._ignored_bytes += len(data)
        super().data_received(data)
        if self._ignored_bytes > self.limits.body_bytes + self.limits.header_bytes:
            self._end(None, "body_too_large")
        elif self._in_headers and self._header_bytes > self.limits.header_bytes:
            self._end(431, "headers_too_large")

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_headers, self._in_body, self._ignored_bytes = True, False, 0
        self._expect(self.limits.header_seconds)

    def on_headers_complete(self) -> None:
        """The headers are here; now the body has to come."""
        self._in_headers, self._in_body, self._header_bytes = False, True, 0
        self._expect(self.limits.body_seconds)
        if len(self.pipeline) >= self.limits.pipelined:
            # uvicorn reads on after each answer, and keeps all that comes: requests would pile up without end.
            self._count("too_many_pipelined")
            raise OverflowError
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """All of the request is here: whatever time it takes now is ours."""
        self._in_body = False
        if self.cycle.response_complete:
            # Answered before it was read (too large, say): this connection is idle, and uvicorn's keep-alive is off.
            self._expect(self.limits.keep_alive_seconds)
        else:
            self._expect(None)
            self.waiting.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """It is answered; the next one may take its time to begin (uvicorn's keep-alive), not to go on."""
        if not self.transport.is_closing() and not self.pipeline:
            self.waiting[self] = None
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The client does not take what was written."""
        super().pause_writing()
        self._paused = self.loop.time()

    def resume_writing(self) -> None:
        """The client takes it."""
        super().resume_writing()
        self._paused = None

    def _expect(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._late)

    def _look(self) -> None:
        """Now and then: is something written that is not taken? uvicorn closes, and waits for that without end."""
        now = self.loop.time()
        if self.transport.is_closing() and self._paused is None:
            self._paused = now
        if self._paused is not None and now - self._paused >= self.limits.write_seconds:
            self._count("too_slow")
            self.transport.abort()
            return
        self._looking = self.loop.call_later(self.limits.write_seconds / 4, self._look)

    def _late(self) -> None:
        self._timer = None
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy and not self._in_body:
            return  # The client waits for us.
        asked = not self.cycle.response_started if self._in_body else self._in_headers
        self._end(408 if asked else None, "too_slow")

    def _count(self, word: str) -> None:
        self.counts[0](word)

    def _end(self, status: int | None, word: str) -> None:
        """Say why, where the client can expect an answer, and close."""
        self.waiting.pop(self, None)
        if self.transport.is_closing():
            return
        self._count(word)
        if status is not None:
            body = f'{{"error":"{word}","reason":"{_SAID[status].lower()}"}}'.encode()
            head = f"HTTP/1.1 {status} {_SAID[status]}\r\ncontent-type: application/json\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()


def patient_protocol(limits: Limits, count: Count) -> type[PatientProtocol]:
    """The protocol of one server.

    Args:
        limits: The bounds.
        count: Told a word for each connection that is ended for its client's sake.
    """
    members: dict[str, Any] = {"limits": limits, "counts": (count,), "waiting": {}}
    return type("PatientProtocol", (PatientProtocol,), members)
