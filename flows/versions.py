"""The versions of a model as rows: from the signed releases, the pointer, and the tags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import IntegrityError
from components.settings.base import nearest
from components.storage.contract import MissingObjectError, ObjectStore
from flows.auditing.recalled import inherited, recalls_now
from flows.auditing.witness import check_and_remember
from flows.registry import registered, version_tag
from flows.repository import store_of
from flows.switching import DeploymentError, before
from flows.trust import trusted

if TYPE_CHECKING:
    from components.provenance.recalls import Recall
    from components.provenance.signing import PublicKey

_SHOWN_SWITCHES = 5


def version_rows(root: Path, name: str) -> tuple[list[dict[str, Any]], int | None]:
    """One record a version, the newest first, and the number of the live one.

    ``state`` is ``live``, ``before`` (what a rollback goes back to), ``was live``, ``registered``, ``not tagged`` (its
    registration has stopped halfway), ``damaged`` (its signature or content is not right) or ``missing`` (the pointer
    names it, and it is not in the store). ``recalled`` holds the recalls that it inherits, in words.

    Raises:
        DeploymentError: There is no version of that name.
    """
    from components.serving.pointer import history
    from components.serving.releases import names, versions

    store = store_of(root)
    switches, released, tagged = history(store, name, trusted(root)), versions(store, name), registered(root, name)
    numbers = sorted({*released, *tagged, *(one.version for one in switches)}, reverse=True)
    if not numbers:
        raise DeploymentError(f"no version of {name!r} is registered; {nearest(name, names(store))}")
    live, previous = (switches[-1].version if switches else None), before(switches)
    keys = trusted(root)
    try:
        recalls = recalls_now(root, store, switches[-1] if switches else None).recalls
    except IntegrityError:  # which is told by `log_problems`; the versions are shown all the same
        recalls = ()
    rows = []
    for version in numbers:
        row = _released(store, name, version, keys, recalls)
        if not row["state"]:
            been = any(one.version == version for one in switches)
            plain = "was live" if been else "registered" if version in tagged or not tagged else "not tagged"
            row["state"] = "live" if version == live else "before" if version == previous else plain
        rows.append({**row, "live": version == live, "tag": version_tag(name, version) if version in tagged else ""})
    return rows, live


def log_problems(root: Path, name: str) -> list[str]:
    """What is wrong with the logs of switches and of recalls, also by what this checkout remembers of them."""
    from components.serving.pointer import current, switch_log

    store, found = store_of(root), []
    if problem := check_and_remember(root, store, switch_log(store, name)):
        found.append(problem)
    try:
        recalls_now(root, store, None if found else current(store, name, trusted(root)))
    except IntegrityError as error:
        found.append(error.message)
    return found


def show_versions(root: Path, name: str) -> None:
    """The versions of a model on the page of the run that this is called in.

    Raises:
        StorageError: The store cannot be read.
    """
    from flows.artifacts import publish_versions

    try:
        rows, _ = version_rows(root, name)
    except DeploymentError:  # there is none
        return
    publish_versions(name, rows)


def history_lines(root: Path, name: str) -> list[str]:
    """The newest switches, in words, the newest first."""
    from components.serving.pointer import history

    return [
        f"switch {one.number}: {one.kind} to v{one.version} by {one.who} at {one.at}{f': {one.why}' if one.why else ''}"
        for one in reversed(history(store_of(root), name, trusted(root))[-_SHOWN_SWITCHES:])
    ]


def _released(
    store: ObjectStore, name: str, version: int, keys: Sequence[PublicKey], recalls: Sequence[Recall]
) -> dict[str, Any]:
    from components.serving.releases import read_release

    row: dict[str, Any] = {"version": version, "state": "", "created": "", "commit": "", "gate": "", "attestation": ""}
    row["recalled"] = []
    try:
        release = read_release(store, name, version, keys)
        row["recalled"] = [str(one) for one in inherited(store, release, recalls)]
    except MissingObjectError:
        return {**row, "state": "missing"}
    except IntegrityError as error:
        return {**row, "state": "damaged", "gate": error.message}
    gate = "passed" if release.gate.get("passed") else "not passed"
    known = {"created": release.created, "commit": release.commit, "attestation": release.attestation}
    return {**row, **known, "gate": gate}
