"""Events of a model, told to a Prefect server: what starts deployments, and what dashboards show.

They are posted to the server's API: unlike Prefect's own emitter, which works behind one's back, this tells whether the
server has taken them, and needs no import of Prefect. Without ``PREFECT_API_URL`` nothing is emitted.
"""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from components.errors import RecstillError
from flows.repository import without_credentials

if TYPE_CHECKING:
    from flows.finalizing import Registered

REGISTERED = "recstill.model.registered"
DEPLOYED = "recstill.model.deployed"
ROLLED_BACK = "recstill.model.rolled_back"
SERVER_VARIABLE = "PREFECT_API_URL"
_NAMESPACE = uuid.UUID("9d3f4c0e-6a0c-5b0e-8f43-0d5a4a3d2a11")
_SECONDS = 10.0


class ServerError(RecstillError):
    """The Prefect server does not answer, or refuses."""


def resource_id(name: str) -> str:
    """What events of a model are about, for triggers."""
    return f"recstill.model.{name}"


def emit_registered(registered: Registered, say: Callable[[str], None] = lambda line: None) -> bool:
    """Tell that a version is registered.

    Returns:
        Whether a server was told; without ``PREFECT_API_URL`` none is, and that is said.

    Raises:
        ServerError: The server does not answer, or refuses.
    """
    fields = ("name", "version", "commit", "attestation", "created")
    payload = {field: getattr(registered, field) for field in fields}
    return emit(REGISTERED, registered.name, payload, key=registered.attestation, say=say)


def emit(
    event: str, name: str, payload: Mapping[str, Any], *, key: str, say: Callable[[str], None] = lambda line: None
) -> bool:
    """Tell one event of a model.

    Args:
        event: Its name.
        name: Of the model.
        payload: What triggers can hand on.
        key: What makes the event unique: told twice, it has the same id.
        say: Takes a line for whoever watches.

    Raises:
        ServerError: The server does not answer, or refuses.
    """
    address = os.environ.get(SERVER_VARIABLE, "").rstrip("/")
    if not address:
        say(f"{SERVER_VARIABLE} is not set: nobody is told of {event}")
        return False
    record = {
        "id": str(uuid.uuid5(_NAMESPACE, f"{event}:{name}:{key}")),
        "occurred": datetime.now(UTC).isoformat(),
        "event": event,
        "resource": {"prefect.resource.id": resource_id(name), "prefect.resource.name": name},
        "related": [],
        "payload": dict(payload),
    }
    _post(f"{address}/events", json.dumps([record]).encode(), event)
    say(f"{event} told to {without_credentials(address)}")
    return True


def _post(url: str, body: bytes, event: str) -> None:
    headers = {"Content-Type": "application/json"}
    if pair := os.environ.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    elif token := os.environ.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {token}"
    shown = without_credentials(url)
    try:
        request = urllib.request.Request(url, data=body, headers=headers, method="POST")
        with urllib.request.urlopen(request, timeout=_SECONDS):
            return
    except urllib.error.HTTPError as error:
        raise ServerError(
            f"the Prefect server refuses {event} at {shown} with status {error.code}",
            f"Check {SERVER_VARIABLE} (it ends in /api) and the server's credentials, then run again.",
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise ServerError(
            f"the Prefect server does not answer at {shown} ({reason}): nobody was told of {event}",
            f"Start it, or correct {SERVER_VARIABLE}, then run again: what is done is kept.",
        ) from None
