"""``recstill serve``: the service, following the ``prod`` pointer of the store or from a package alone."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.errors import SettingsError

if TYPE_CHECKING:
    from components.serving.following import Follower
    from components.serving.live_model import LiveModel


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command()(serve)


def serve(
    name: Annotated[str | None, typer.Argument(help="Serve what `prod` of this name points at, and follow it.")] = None,
    *,
    package: Annotated[
        Path | None, typer.Option("--package", metavar="FOLDER", help="Serve this package, for a first look.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 for any that is free.")] = 8000,
    poll: Annotated[float, typer.Option("--poll", min=0.05, help="Seconds between two looks at the pointer.")] = 1.0,
    threads: Annotated[
        int, typer.Option("--threads", min=0, help="For models that take over 2 ms; 0: one for each processor.")
    ] = 0,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Requests answered at one time.")] = 64,
    max_body: Annotated[int, typer.Option("--max-body", min=1024, help="Bytes of a request's body.")] = 1 << 20,
    access_log: Annotated[bool, typer.Option("--access-log", help="Write a line for each request.")] = False,
) -> None:
    """Answer requests for recommendations over HTTP: POST /recommend; see /openapi.json.

    With RECSTILL_API_KEY set, questions need that key.
    """
    if (name is None) == (package is None):
        raise SettingsError("serve needs a NAME or a --package, and not both", "Try `recstill serve movielens`.")
    from components.serving.event_log import log_event, start_logging
    from components.serving.http_app import API_KEY_VARIABLE, service_app
    from components.serving.http_server import opened_socket, run_server, with_files_for
    from components.serving.limits import Limits
    from components.serving.live_model import LiveModel
    from components.serving.metrics import Metrics
    from components.serving.served_model import ServedModel

    # As the first process of a container, it would not hear the signal at all before uvicorn listens to it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    start_logging(access=access_log)
    limits = with_files_for(Limits(concurrency=concurrency, body_bytes=max_body))
    metrics = Metrics()
    live = LiveModel(metrics, threads or os.cpu_count() or 1)
    follower = None
    with opened_socket(host, port) as opened:
        try:
            if package is not None:
                live.swap(ServedModel(package, live.threads, live.workers), source=package)
            else:
                follower = _follower(str(name), live, poll)
                follower.start()
            api_key = os.environ.get(API_KEY_VARIABLE) or None
            if api_key is None:
                reason = f"{API_KEY_VARIABLE} is not set: whoever reaches the port may ask"
                log_event("no_api_key", {"reason": reason}, logging.WARNING)
            healthy = (lambda: True) if follower is None else follower.alive
            service = service_app(live, limits, api_key=api_key, healthy=healthy)
            address, bound = opened.getsockname()[:2]
            log_event("listening", {"url": f"http://{f'[{address}]' if ':' in address else address}:{bound}"})
            run_server(service, opened, limits, metrics, access_log=access_log)
        finally:
            if follower is not None:
                follower.stop()
            live.stop()
    log_event("stopped", {})


def _follower(name: str, live: LiveModel, seconds: float) -> Follower:
    """What follows the pointer in the store.

    Raises:
        SettingsError: No key is trusted.
        DataError: The name cannot be one.
        StorageError: The store's address is of no known form.
    """
    from components.provenance.signing import trusted_keys
    from components.serving.following import Follower
    from components.serving.releases import attestation_key
    from components.storage.object_store import STORE_VARIABLE, open_store

    # A service needs no checkout; started in one, it uses that one's store and key.
    here = Path.cwd()
    root = next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").is_file()), here) / ".recstill"
    store = open_store(os.environ.get(STORE_VARIABLE) or f"file://{root / 'store'}")
    trusted_keys(root / "keys")
    attestation_key(name, 1)
    return Follower(store, name, live, lambda: trusted_keys(root / "keys"), seconds)
