"""What happened to a model: what was registered, refused, live and rolled back; who decided, when and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.errors import IntegrityError, SettingsError
from components.settings.base import nearest
from components.storage.contract import MissingObjectError, ObjectStore
from flows.auditing.shelf import Shelf, Shelved
from flows.auditing.switches import switches_of
from flows.registry import registered, shown
from flows.repository import git, keys_of, store_of
from flows.runs import read_run

if TYPE_CHECKING:
    from components.provenance.signing import PublicKey
    from components.serving.pointer import Switch

_RUN = re.compile(r"[0-9a-f]{64}")
Kind = Literal["registered", "deploy", "rollback", "refused", "recall", "lift"]


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        at: When, ISO 8601, by the clock of whoever did it; of a refusal, when the store has taken its record.
        kind: What.
        version: Which; None: none came of it.
        who: Who decided, as far as it is known.
        why: The reason.
        gate: Figures of the gate.
        order: Number of the switch; orders what clocks may have confused.
        problem: Why it is not to be trusted; empty: it is.
    """

    at: str
    kind: Kind
    version: int | None
    who: str = ""
    why: str = ""
    gate: dict[str, Any] = field(default_factory=dict)
    order: int = 0
    problem: str = ""


@dataclass(frozen=True)
class ModelHistory:
    """All of it.

    Attributes:
        name: Of the model.
        events: Oldest first.
        notes: What could not be read, or contradicts itself.
    """

    name: str
    events: list[Event]
    notes: list[str]

    def live_at(self, moment: datetime) -> Event | None:
        """The switch that was in force; the newest one that is not later. None: nothing was live."""
        switches = [one for one in self.events if one.kind in ("deploy", "rollback")]
        before = [one for one in switches if moment_of(one.at) <= moment]
        return max(before, key=lambda one: one.order, default=None)


def history_of(root: Path, name: str) -> ModelHistory:
    """What happened to a model.

    Args:
        root: The checkout; its tags tell who has registered what.
        name: Of the model.

    Raises:
        SettingsError: Nothing is known of a model of that name.
        StorageError: The store cannot be read.
    """
    from components.provenance.signing import trusted_keys

    store, notes = store_of(root), list[str]()
    try:
        keys = trusted_keys(keys_of(root))
    except SettingsError as error:
        keys = ()
        notes.append(f"{error.message}: nothing here counts as signed")
    shelf = Shelf(store, keys)
    tags = registered(root, name)
    releases = [one for one in shelf.releases if one.name == name]
    events = [_registered(store, one, _tagger(root, name, one.version, tags)) for one in releases]
    known = {one.version for one in releases}
    for version in tags.keys() - known:
        who, at = _tagger(root, name, version, tags)
        events.append(
            Event(at, "registered", version, who, problem=f"the release of {shown(name, version)} is not in the store")
        )
    notes += [f"{one} has no tag in this repository" for one in releases if tags and one.version not in tags]
    try:
        events += [_switched(one) for one in switches_of(store, name, keys)]
    except IntegrityError as error:
        notes.append(f"what was live cannot be told: {error.message}")
    events += _refused(store, name, keys, notes)
    events += _recalled(shelf, releases, notes)
    if not events:
        raise SettingsError(
            f"nothing is known of a model {name!r}; {nearest(name, sorted({one.name for one in shelf.releases}))}"
        )
    order = {"registered": 0, "refused": 0}
    events.sort(key=lambda one: (moment_of(one.at), order.get(one.kind, 1), one.order))
    switches = [one for one in events if one.order]
    if [one.order for one in switches] != sorted(one.order for one in switches):
        notes.append("the clocks of those who switched contradict the order of the switches: times are not sure")
    return ModelHistory(name, events, notes)


def parsed_moment(text: str) -> datetime:
    """A date, whose end is meant, or an instant; UTC where no zone is given.

    Raises:
        SettingsError: It is neither.
    """
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise SettingsError(f"{text!r} is no date", "Write it as 2026-05-03, or 2026-05-03T12:00:00Z.") from None
    if len(text.strip()) <= len("2026-05-03"):
        found = datetime.combine(found.date(), time.max)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def moment_of(text: str) -> datetime:
    """When something was, for sorting; the beginning of time where nobody knows."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


def _registered(store: ObjectStore, release: Shelved, tagger: tuple[str, str]) -> Event:
    verdict: dict[str, Any] = dict(release.predicate.get("gate") or {})
    file = release.files.get("gate.json")
    try:
        content = store.get(f"releases/{release.name}/v{release.version}/gate-{file}.json", file) if file else b""
        verdict = payload_json(content) or verdict
    except (MissingObjectError, IntegrityError):
        pass
    who, tagged = tagger
    gate = {part: verdict.get(part) for part in ("passed", "kind", "challenger", "champion", "difference")}
    return Event(release.created or tagged, "registered", release.version, who, "", gate, problem=release.problem)


def payload_json(content: bytes) -> dict[str, Any]:
    """A JSON object out of bytes; empty when it is none."""
    import json

    try:
        document = json.loads(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _switched(one: Switch) -> Event:
    return Event(one.at, one.kind, one.version, one.who, one.why, order=one.number)


def _refused(store: ObjectStore, name: str, keys: Sequence[PublicKey], notes: list[str]) -> list[Event]:
    events = []
    for entry in store.list(f"runs/{name}/"):
        key = entry.key.removeprefix(f"runs/{name}/").removesuffix(".json")
        if not _RUN.fullmatch(key):  # beside the records lie the marks and numbers of runs
            continue
        try:
            run = read_run(store, name, key, keys)
        except IntegrityError as error:
            notes.append(error.message)
            continue
        if run is not None and run.status == "refused":
            at = datetime.fromtimestamp(entry.modified, UTC).isoformat(timespec="seconds")
            gate = {part: run.verdict.get(part) for part in ("passed", "kind", "challenger", "champion", "difference")}
            events.append(Event(at, "refused", None, "the gate", "; ".join(run.reasons), gate))
    return events


def _recalled(shelf: Shelf, releases: list[Shelved], notes: list[str]) -> list[Event]:
    from components.provenance.recalls import every_recall

    try:
        entries = every_recall(shelf.store, shelf.keys) if shelf.keys else []
    except IntegrityError as error:
        notes.append(f"what was recalled cannot be told: {error.message}")
        return []
    events = []
    wanted = {digest for recall in entries for digest in recall.digests}
    ids = {str(release): shelf.origin_ids(release, wanted) for release in releases}
    for recall in entries:
        for release in releases:
            if recall.digests & ids[str(release)]:
                kind: Kind = "recall" if recall.lifts is None else "lift"
                why = f"{recall.kind} {recall.name}: {recall.reason}"
                events.append(Event(recall.at, kind, release.version, recall.who, why))
    return events


def _tagger(root: Path, name: str, version: int, tags: dict[int, str]) -> tuple[str, str]:
    """Who has tagged a version, and when."""
    if version not in tags:
        return "", ""
    form = "--format=%(taggername)%00%(taggerdate:iso-strict)"
    who, _, at = git(root, "for-each-ref", form, f"refs/tags/{name}@v{version}.0.0").strip().partition("\0")
    return who, at
