"""What a store says about origin: releases, signed statements of stages, manifests of soft labels, recalls.

Everything is read at most once, and looked through as bytes before it is parsed: of hundreds of releases a question is
most often about one. What is not signed by a trusted key is not hidden, it is labelled.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from components.errors import IntegrityError, RecstillError
from components.storage.contract import MissingObjectError, ObjectStore

if TYPE_CHECKING:
    from components.provenance.recalls import Recall
    from components.provenance.signing import PublicKey
    from components.provenance.stage_run import StageStatement
    from flows.auditing.lock_parsing import StageRun

_RELEASED = re.compile(r"releases/([A-Za-z0-9_-]+)/v([1-9]\d*)/attestation\.dsse\.json")
_MANIFEST = re.compile(r"soft-labels/([0-9a-f]{64})/manifest\.json")
_AT_ONCE = 16


@dataclass(eq=False)
class Shelved:
    """A release as it lies in the store.

    Attributes:
        name: Of the model.
        version: From 1.
        envelope: The signed bytes.
        payload: What they sign, parsed; empty when it cannot be read.
        problem: Why it is not to be trusted; empty: a trusted key has signed it.
    """

    name: str
    version: int
    envelope: bytes = field(repr=False)
    payload: Mapping[str, Any] = field(repr=False)
    _check: Callable[[Shelved], str] = field(repr=False)

    def __str__(self) -> str:
        return f"{self.name}@v{self.version}"

    @cached_property
    def problem(self) -> str:
        """Why it is not to be trusted; empty: a trusted key has signed it."""
        return self._check(self)

    @cached_property
    def attestation(self) -> str:
        """SHA-256 of the signed envelope."""
        return hashlib.sha256(self.envelope).hexdigest()

    @property
    def predicate(self) -> Mapping[str, Any]:
        """What it says of itself."""
        return self.payload.get("predicate") or {}

    @property
    def commit(self) -> str:
        """That holds the lock."""
        return str(self.predicate.get("commit") or "")

    @property
    def created(self) -> str:
        """When that commit was made."""
        return str(self.predicate.get("created") or "")

    @property
    def package(self) -> str:
        """Id of the package."""
        return str(self.predicate.get("package") or "")

    @property
    def lineage(self) -> dict[str, str]:
        """Digests by kind."""
        return {str(key): str(value) for key, value in (self.predicate.get("lineage") or {}).items()}

    @cached_property
    def files(self) -> dict[str, str]:
        """SHA-256 by file name."""
        try:
            return {str(one["name"]): str(one["digest"]["sha256"]) for one in self.payload.get("subject") or ()}
        except (KeyError, TypeError):
            return {}

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes by file name."""
        return dict(self.predicate.get("sizes") or {})


@dataclass(frozen=True)
class ManifestNote:
    """A manifest of soft labels in the store.

    Attributes:
        id: Of the cache.
        md5: Of the manifest's bytes: how a lock names it.
        teacher, dataset: Their digests.
        parts: SHA-256 by name.
    """

    id: str
    md5: str
    teacher: str
    dataset: str
    parts: Mapping[str, str]


class Shelf:
    """The store of a checkout.

    Args:
        store: It.
        keys: Whose signatures count; with none, nothing is trusted.
    """

    def __init__(self, store: ObjectStore, keys: Sequence[PublicKey]) -> None:
        self.store, self.keys = store, tuple(keys)
        self._statements: dict[tuple[str, str], tuple[StageStatement | None, str]] = {}

    @cached_property
    def releases(self) -> list[Shelved]:
        """Every release, by name and version."""
        found = (_RELEASED.fullmatch(entry.key) for entry in self.store.list("releases/"))
        named = sorted((match[1], int(match[2]), match[0]) for match in found if match)
        contents = self._read([key for _, _, key in named])
        return [
            Shelved(name, version, contents[key], payload(contents[key]), self._signature)
            for name, version, key in named
            if key in contents
        ]

    def release(self, name: str, version: int) -> Shelved | None:
        """One release; None when the store has none of that number."""
        return next((one for one in self.releases if (one.name, one.version) == (name, version)), None)

    @cached_property
    def manifests(self) -> list[ManifestNote]:
        """Every manifest of soft labels that can be read."""
        keys = [entry.key for entry in self.store.list("soft-labels/") if _MANIFEST.fullmatch(entry.key)]
        notes = []
        for content in self._read(keys).values():
            try:
                document = json.loads(content)
                parts = {str(part["name"]): str(part["sha256"]) for part in document["parts"]}
                notes.append(
                    ManifestNote(
                        str(document["id"]),
                        hashlib.md5(content, usedforsecurity=False).hexdigest(),
                        str(document["teacher"]),
                        str(document["dataset"]),
                        parts,
                    )
                )
            except (ValueError, KeyError, TypeError):
                continue
        return notes

    @cached_property
    def recalls(self) -> tuple[Recall, ...]:
        """The recalls in force.

        Raises:
            IntegrityError: The log is not whole.
        """
        from components.provenance.recalls import recalls

        return tuple(recalls(self.store, self.keys))

    def statement(self, run: StageRun) -> tuple[StageStatement | None, str]:
        """What was attested about a run, and why it is not to be trusted (empty: it is)."""
        key = (run.scenario, run.entry)
        if key not in self._statements:
            self._statements[key] = self._found(*key)
        return self._statements[key]

    def statements(self, *digests: str) -> list[StageStatement]:
        """Every statement that names one of some digests anywhere; without a digest, every one there is."""
        wanted = [digest.encode() for digest in digests]
        found = []
        for key, (envelope, text) in self._payloads.items():
            if not wanted or any(digest in text for digest in wanted):
                statement, problem = self._parsed(envelope, key)
                if statement is not None:
                    self._statements[statement.scenario, statement.entry] = (statement, problem)
                    found.append(statement)
        return found

    def bundled(self, release: Shelved) -> list[StageStatement]:
        """The statements that a release brings along; none when it has no bundle, or it is damaged."""
        found = []
        for line in self._bundle(release):
            statement, problem = self._parsed(line, f"the bundle of {release}")
            if statement is not None:
                self._statements[statement.scenario, statement.entry] = (statement, problem)
                found.append(statement)
        return found

    def origin_ids(self, release: Shelved, wanted: Iterable[str]) -> frozenset[str]:
        """What a recall may name of a release, as deployment and service ask for it.

        Args:
            release: Which.
            wanted: The digests that recalls name: only statements that hold one of these are looked into.
        """
        from components.provenance.recalls import content_ids
        from components.provenance.slsa_form import parsed
        from components.serving.origins import statement_ids

        found = set(content_ids(release))
        sought = [digest.encode() for digest in wanted]
        for text in map(_text, self._bundle(release)) if sought else ():
            if any(digest in text for digest in sought):
                try:
                    found |= statement_ids(parsed(json.loads(text)))
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue
        return frozenset(found)

    def inherited(self, release: Shelved, recalls: Iterable[Recall]) -> list[Recall]:
        """The recalls that a release inherits: by its lineage, or by the statements of its stages."""
        from components.provenance.recalls import recalls_of

        known = list(recalls)
        return recalls_of(self.origin_ids(release, {digest for one in known for digest in one.digests}), known)

    def _bundle(self, release: Shelved) -> Iterator[bytes]:
        """The envelopes of a release's statements; none when it has no bundle, or it is damaged."""
        for file, sha256 in release.files.items():
            if not file.endswith(".intoto.jsonl"):
                continue
            try:
                content = self.store.get(f"releases/{release.name}/v{release.version}/provenance-{sha256}.intoto.jsonl")
            except RecstillError:
                continue
            if hashlib.sha256(content).hexdigest() == sha256:
                yield from content.splitlines()

    @cached_property
    def _payloads(self) -> dict[str, tuple[bytes, bytes]]:
        contents = self._read([entry.key for entry in self.store.list("provenance/")])
        return {key: (envelope, _text(envelope)) for key, envelope in contents.items()}

    def _found(self, scenario: str, entry: str) -> tuple[StageStatement | None, str]:
        from components.provenance.stage_statement import statement_key

        try:
            key = statement_key(scenario, entry)
            return self._parsed(self.store.get(key), key)
        except (MissingObjectError, IntegrityError):
            return None, ""

    def _parsed(self, envelope: bytes, what: str) -> tuple[StageStatement | None, str]:
        """A statement, trusted or not."""
        from components.provenance.slsa_form import parsed
        from components.provenance.stage_statement import read_statement

        try:
            return read_statement(envelope, self.keys, what), ""
        except IntegrityError as error:
            try:
                return parsed(payload(envelope)), error.message
            except (ValueError, KeyError, TypeError, AttributeError):
                return None, error.message

    def _signature(self, release: Shelved) -> str:
        from components.provenance.signing import verified
        from components.serving.releases import PAYLOAD_TYPE

        try:
            verified(release.envelope, PAYLOAD_TYPE, self.keys, str(release))
        except IntegrityError as error:
            return error.message
        said = (release.predicate.get("name"), release.predicate.get("version"))
        return "" if said == (release.name, release.version) else f"the attestation of {release} is that of another"

    def _read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Contents by key, in the order of the keys; what is gone meanwhile is left out."""

        def one(key: str) -> tuple[str, bytes | None]:
            try:
                return key, self.store.get(key)
            except MissingObjectError:
                return key, None

        # Files of a disk are read fastest one after the other.
        if not keys or self.store.local_file(keys[0]) is not None:
            pairs: Iterable[tuple[str, bytes | None]] = map(one, keys)
            return {key: content for key, content in pairs if content is not None}
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return {key: content for key, content in threads.map(one, keys) if content is not None}


def payload(envelope: bytes) -> dict[str, Any]:
    """What an envelope signs, as JSON, without a look at the signature; empty when it cannot be read."""
    try:
        document = json.loads(_text(envelope))
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _text(envelope: bytes) -> bytes:
    try:
        return base64.b64decode(json.loads(envelope)["payload"])
    except (ValueError, KeyError, TypeError):
        return b""
