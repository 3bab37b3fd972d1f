"""Every byte of a cache read again from the store and compared with what was recorded of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from components.errors import IntegrityError, SettingsError
from components.soft_labels.codecs.base import Codec
from components.soft_labels.codecs.building import codec_of
from components.soft_labels.inventory import CacheEntry
from components.soft_labels.manifest import MANIFEST_NAME, Manifest, Part, record_name, written
from components.soft_labels.parts import content_of, describes
from components.storage.contract import MissingObjectError, ObjectStore


@dataclass(frozen=True)
class Finding:
    """One object that is not as it should be.

    Attributes:
        key: In the store.
        kind: ``missing``, ``damaged``, or ``extra``: no part of the cache, and no harm to it.
        detail: What is wrong, in words.
    """

    key: str
    kind: Literal["missing", "damaged", "extra"]
    detail: str


@dataclass(frozen=True)
class Verdict:
    """What was found of one cache.

    Attributes:
        parts: How many were read.
        bytes: Of these parts.
        findings: Sorted by key; empty when all is well.
    """

    parts: int
    bytes: int
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is missing or damaged."""
        return all(finding.kind == "extra" for finding in self.findings)


def verify_cache(
    store: ObjectStore, cache: CacheEntry, *, workers: int, advance: Callable[[int], None] = lambda rows: None
) -> Verdict:
    """Read all objects of a cache from the store and check them; memory holds one part for each worker.

    Of a part: the SHA-256 of the object, the SHA-256 of what it holds, the form that its codec gives it, and its
    record against what the manifest says. Of a cache without a readable manifest: every part that has a record, as far
    as the record goes.

    Args:
        store: Where it lies.
        cache: As it was listed.
        workers: Parts that are read at once.
        advance: Called with the rows of each part that has been checked.

    Raises:
        StorageError: The store cannot be read.
    """
    codec: Codec | None = None
    if cache.manifest is not None:
        findings, parts = _beside_the_parts(cache, cache.manifest), list(cache.manifest.parts)
        codec = _codec(cache.manifest, findings)
    else:
        findings, parts = _of_records(store, cache)
    with ThreadPoolExecutor(workers) as pool:
        checks = {pool.submit(_of_part, store, cache, part, codec): part for part in parts}
        try:
            for check in as_completed(checks):
                findings += check.result()
                advance(checks[check].rows)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return Verdict(len(parts), sum(part.bytes for part in parts), tuple(sorted(findings, key=lambda one: one.key)))


def _beside_the_parts(cache: CacheEntry, manifest: Manifest) -> list[Finding]:
    """What is wrong with the manifest itself, and what it does not name."""
    findings = [Finding(entry.key, "extra", "the manifest does not name it") for entry in cache.strays]
    if cache.content != written(manifest):
        findings.append(Finding(manifest.key(MANIFEST_NAME), "damaged", "it is not in the form in which it is written"))
    return findings


def _of_records(store: ObjectStore, cache: CacheEntry) -> tuple[list[Finding], list[Part]]:
    """What is wrong with the records, and the parts that the others describe."""
    findings, parts = [], []
    if cache.content is not None:
        findings.append(Finding(cache.key(MANIFEST_NAME), "damaged", cache.problem))
    for entry in cache.records:
        try:
            content = store.get(entry.key)
            part = Part.model_validate_json(content)
            if content != written(part) or record_name(part.number) != cache.name(entry):
                raise IntegrityError("it is not in the form in which it is written")
            parts.append(part)
        except MissingObjectError:
            continue  # removed since it was listed, by somebody who removes the cache
        except (ValidationError, IntegrityError):
            findings.append(Finding(entry.key, "damaged", "it is not the record of a part"))
    return findings, parts


def _of_part(store: ObjectStore, cache: CacheEntry, part: Part, codec: Codec | None) -> list[Finding]:
    """What is wrong with a part, and with its record where the manifest says what the record must be."""
    findings = []
    if cache.manifest is not None:
        key = cache.key(record_name(part.number))
        try:
            if store.get(key) != written(part):
                findings.append(Finding(key, "damaged", f"it does not say of {part.name} what the manifest says"))
        except MissingObjectError:
            findings.append(Finding(key, "missing", f"the record of {part.name}"))
        except IntegrityError:
            findings.append(Finding(key, "damaged", f"the record of {part.name} is not what its own SHA-256 says"))
    key = cache.key(part.name)
    try:
        if not _is_as_recorded(store.get(key, part.sha256), part, codec):
            findings.append(Finding(key, "damaged", "its content is not what is recorded of it"))
    except MissingObjectError:
        findings.append(Finding(key, "missing", f"{part.rows:,} rows from {part.first:,} on"))
    except IntegrityError as error:
        # The store's message names the key and the store, as a message by itself must.
        told = error.message.removeprefix(f"object {key} in {store.address} is damaged: ")
        findings.append(Finding(key, "damaged", told))
    return findings


def _is_as_recorded(stored: bytes, part: Part, codec: Codec | None) -> bool:
    if codec is not None:
        return describes(part, stored, codec)
    content_of(stored, part)
    return len(stored) == part.bytes


def _codec(manifest: Manifest, findings: list[Finding]) -> Codec | None:
    try:
        return codec_of(manifest.codec, manifest.outcomes)
    except (SettingsError, KeyError, TypeError, ValueError) as error:
        findings.append(Finding(manifest.key(MANIFEST_NAME), "damaged", f"its codec is not known: {error}"))
        return None
