"""What one client may ask of the service, and reading a request's body within it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request


@dataclass(frozen=True)
class Limits:
    """Bounds that keep one client from taking the service away from the others.

    Attributes:
        body_bytes: Of one request's body.
        buffered_bytes: Of all bodies that are being read at one time.
        header_bytes: Of one request's line and headers.
        history: Ids in a history, and in a list of excluded items.
        id_length: Characters of an id.
        k: Items that may be asked for.
        batch: Questions in one batch.
        values: Numbers in one request.
        characters: Of a text.
        concurrency: Requests that are being answered at one time; more are told to come again.
        connections: Open connections; beyond them, the one that has waited longest for its client is closed.
        pipelined: Requests that may wait on a connection behind the one that is being answered.
        header_seconds: From the first byte of a request to the end of its headers.
        body_seconds: From there to the end of its body.
        write_seconds: For a client to take an answer that is larger than the socket's buffers.
        keep_alive_seconds: A connection may stay open between two requests.
        stop_seconds: Running requests may take to end after SIGTERM.
    """

    body_bytes: int = 1 << 20
    buffered_bytes: int = 64 << 20
    header_bytes: int = 16 << 10
    history: int = 1000
    id_length: int = 256
    k: int = 500
    batch: int = 64
    values: int = 1 << 16
    characters: int = 100_000
    concurrency: int = 64
    connections: int = 4000
    pipelined: int = 32
    header_seconds: float = 5.0
    body_seconds: float = 10.0
    write_seconds: float = 10.0
    keep_alive_seconds: int = 75
    stop_seconds: int = 20


class RefusedRequestError(Exception):
    """A request that is not answered.

    Args:
        status: HTTP status.
        error: A word for programs.
        reason: A sentence for people.
        headers: Of the response.
    """

    def __init__(self, status: int, error: str, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, error, reason)
        self.status, self.error, self.reason = status, error, reason
        self.headers = dict(headers or {})


class BodyReader:
    """Reads bodies of JSON, with a bound on each and on all of them together.

    Args:
        limits: The bounds.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._buffered = 0

    async def read(self, request: Request) -> bytes:
        """The body of a request.

        Raises:
            RefusedRequestError: It is not announced as JSON, too large, or there is no room for it now.
            ClientDisconnect: The client has gone.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RefusedRequestError(
                415, "unsupported_media_type", "the body must be JSON: send `Content-Type: application/json`"
            )
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > self._limits.body_bytes:
            raise self._too_large()
        parts: list[bytes] = []
        size = 0
        try:
            async for part in request.stream():
                size += len(part)
                self._buffered += len(part)
                if size > self._limits.body_bytes:
                    raise self._too_large()
                if self._buffered > self._limits.buffered_bytes:
                    raise busy("the service is reading as much as it can hold")
                parts.append(part)
        finally:
            self._buffered -= size
        return b"".join(parts)

    def _too_large(self) -> RefusedRequestError:
        return RefusedRequestError(
            413, "body_too_large", f"the body may have {self._limits.body_bytes} bytes, and this one has more"
        )


def busy(reason: str) -> RefusedRequestError:
    """The refusal of a request that may well be answered a moment later."""
    return RefusedRequestError(503, "busy", f"{reason}: come again", {"retry-after": "1"})
