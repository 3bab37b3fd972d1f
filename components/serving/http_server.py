"""Running the service on uvicorn: with deadlines for clients, quietly, and ended without dropping a request."""

from __future__ import annotations

import gc
import resource
import signal
import socket
from dataclasses import replace

import uvicorn
from fastapi import FastAPI

from components.errors import SettingsError
from components.serving.client_deadlines import patient_protocol
from components.serving.limits import Limits
from components.serving.metrics import Metrics

_OTHER_FILES = 64
_BACKLOG = 2048


def opened_socket(host: str, port: int) -> socket.socket:
    """A socket that listens, before anything slow is done: an occupied port is found out at once.

    Who connects before the server runs waits for it.

    Args:
        host: A name or an address, IPv4 or IPv6.
        port: 0 for any that is free.

    Raises:
        SettingsError: The address is not this machine's, or the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        told = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(
            f"{host}:{port} cannot be listened on: {told}", "Choose others with --host, --port."
        ) from None
    return opened


def with_files_for(limits: Limits) -> Limits:
    """The limits, with no more connections than this process may have open files; it asks for as many as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = limits.connections if soft == resource.RLIM_INFINITY else soft - _OTHER_FILES
    return replace(limits, connections=max(1, min(limits.connections, room)))


def run_server(app: FastAPI, opened: socket.socket, limits: Limits, metrics: Metrics, *, access_log: bool) -> None:
    """Serve until SIGTERM or Ctrl-C; requests that run then are answered before this returns.

    Args:
        app: What answers.
        opened: From :func:`opened_socket`.
        limits: Deadlines and bounds of connections.
        metrics: Where refused connections are counted.
        access_log: A line for each request, on standard error.
    """
    config = uvicorn.Config(
        app,
        http=patient_protocol(limits, lambda word: metrics.refused.labels(word).inc()),
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=access_log,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=limits.keep_alive_seconds,
        timeout_graceful_shutdown=limits.stop_seconds,
    )
    # What was loaded until now stays: the collector need not look at it, and its pauses are short.
    gc.collect()
    gc.freeze()
    # uvicorn raises the signal once more when it has ended: what follows this call would not happen.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[opened])
