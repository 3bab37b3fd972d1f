"""The versions of a model as rows: from the signed releases, the pointer, and the tags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import IntegrityError
from components.settings.base import nearest
from components.storage.contract import MissingObjectError, ObjectStore
from flows.registry import registered, version_tag
from flows.repository import keys_of, store_of
from flows.switching import DeploymentError, before
from flows.trust import trusted

if TYPE_CHECKING:
    from components.provenance.signing import PublicKey

_SHOWN_SWITCHES = 5


def version_rows(root: Path, name: str) -> tuple[list[dict[str, Any]], int | None]:
    """One record a version, the newest first, and the number of the live one.

    ``state`` is ``live``, ``before`` (what a rollback goes back to), ``was live``, ``registered``, ``not tagged`` (its
    registration has stopped halfway), ``damaged`` (its signature or content is not right) or ``missing`` (the pointer
    names it, and it is not in the store).

    Raises:
        DeploymentError: There is no version of that name.
    """
    from components.provenance.signing import trusted_keys
    from components.serving.pointer import history
    from components.serving.releases import names, versions

    store = store_of(root)
    switches, released, tagged = history(store, name, trusted(root)), versions(store, name), registered(root, name)
    numbers = sorted({*released, *tagged, *(one.version for one in switches)}, reverse=True)
    if not numbers:
        raise DeploymentError(f"no version of {name!r} is registered; {nearest(name, names(store))}")
    live, previous = (switches[-1].version if switches else None), before(switches)
    keys = trusted_keys(keys_of(root))
    rows = []
    for version in numbers:
        row = _released(store, name, version, keys)
        if not row["state"]:
            been = any(one.version == version for one in switches)
            plain = "was live" if been else "registered" if version in tagged or not tagged else "not tagged"
            row["state"] = "live" if version == live else "before" if version == previous else plain
        rows.append({**row, "live": version == live, "tag": version_tag(name, version) if version in tagged else ""})
    return rows, live


def history_lines(root: Path, name: str) -> list[str]:
    """The newest switches, in words, the newest first."""
    from components.serving.pointer import history

    return [
        f"switch {one.number}: {one.kind} to v{one.version} by {one.who} at {one.at}{f': {one.why}' if one.why else ''}"
        for one in reversed(history(store_of(root), name, trusted(root))[-_SHOWN_SWITCHES:])
    ]


def _released(store: ObjectStore, name: str, version: int, keys: tuple[PublicKey, ...]) -> dict[str, Any]:
    from components.serving.releases import read_release

    row: dict[str, Any] = {"version": version, "state": "", "created": "", "commit": "", "gate": "", "attestation": ""}
    try:
        release = read_release(store, name, version, keys)
    except MissingObjectError:
        return {**row, "state": "missing"}
    except IntegrityError as error:
        return {**row, "state": "damaged", "gate": error.message}
    gate = "passed" if release.gate.get("passed") else "not passed"
    known = {"created": release.created, "commit": release.commit, "attestation": release.attestation}
    return {**row, **known, "gate": gate}
