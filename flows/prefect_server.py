"""The Prefect server of ``PREFECT_API_URL``: opened for a few questions, and every way it can fail in plain words."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flows.events import SERVER_VARIABLE, ServerError
from flows.repository import without_credentials
from flows.running import prefer_quiet_prefect

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


@contextmanager
def server_client() -> Iterator[SyncPrefectClient]:
    """A client of the server.

    Raises:
        ServerError: None is named, it does not answer, or it refuses something within the block.
    """
    if not os.environ.get(SERVER_VARIABLE):
        raise ServerError(
            f"{SERVER_VARIABLE} is not set: schedules and triggers live on a Prefect server",
            f"Start one (`recstill up`) and set {SERVER_VARIABLE}, for example to http://127.0.0.1:4200/api.",
        )
    prefer_quiet_prefect()
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL, temporary_settings

    address = without_credentials(os.environ[SERVER_VARIABLE])
    remedy = f"Start it, or set {SERVER_VARIABLE} to where it is."
    try:
        # Prefect may have read its settings before the variable was set.
        with (
            temporary_settings({PREFECT_API_URL: os.environ[SERVER_VARIABLE]}),
            get_client(sync_client=True) as client,
        ):
            problem = client.api_healthcheck()
            if problem is not None:
                raise ServerError(f"the Prefect server at {address} does not answer: {_said(problem)}", remedy)
            yield client
    except PrefectHTTPStatusError as error:
        raise ServerError(f"the Prefect server at {address} refuses: {_detail(error)}") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerError(f"the Prefect server at {address} does not answer: {_said(error)}", remedy) from None


def _detail(error: Exception) -> str:
    response = getattr(error, "response", None)
    try:
        found = response.json()  # type: ignore[union-attr]
    except (AttributeError, ValueError):
        return _said(error)
    return str(found.get("detail") or found.get("exception_detail") or found)[:500]


def _said(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
