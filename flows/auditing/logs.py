"""The logs of the store: what was live, and what stands in git of it."""

from __future__ import annotations

import json
import re
from collections.abc import Collection

from components.errors import IntegrityError, RecstillError
from components.serving.pointer import history
from components.storage.contract import MissingObjectError, ObjectStore
from flows.auditing.audited import Audited

_SWITCH = re.compile(r"releases/([A-Za-z0-9_-]+)/prod/\d{8}\.json")


def live_attestations(store: ObjectStore, in_store: Collection[str]) -> dict[str, dict[int, set[str]]]:
    """What the logs of switches say: attestations by version by name. Entries that cannot be read say nothing."""
    found: dict[str, dict[int, set[str]]] = {}
    for key in in_store:
        if match := _SWITCH.fullmatch(key):
            try:
                record = json.loads(store.get(key))
                version, attestation = int(record["version"]), str(record["attestation"])
            except (ValueError, KeyError, TypeError, IntegrityError, MissingObjectError):
                continue
            found.setdefault(match[1], {}).setdefault(version, set()).add(attestation)
    return found


def check_logs(audit: Audited) -> None:
    """Tell entries of the logs that are damaged or missing."""
    for name in audit.names:
        try:
            history(audit.store, name)
        except RecstillError as error:
            key = next((key for key in audit.places.in_store if key in error.message), f"releases/{name}/prod")
            audit.in_store("corrupt", key, f"the log of what was live of {name}", error.message)
