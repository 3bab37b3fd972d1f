"""How a part and a manifest get their place in the store: bytes first, then a record that only one writer decides."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pydantic import ValidationError

from components.errors import IntegrityError
from components.soft_labels.codecs.base import Codec
from components.soft_labels.manifest import MANIFEST_NAME, CacheIdentity, Manifest, Part, record_name, written
from components.soft_labels.parts import describes
from components.storage.contract import MissingObjectError, ObjectStore


def recorded_part(store: ObjectStore, identity: CacheIdentity, number: int, first: int, rows: int) -> Part | None:
    """What the record of a part says, when there is one that is whole and of this part.

    Args:
        store: Where it lies.
        identity: Of the cache.
        number: The part.
        first: Its first point.
        rows: How many points it must have.

    Raises:
        StorageError: The store cannot be read.
    """
    try:
        content = store.get(identity.key(record_name(number)))
        part = Part.model_validate_json(content)
    except (IntegrityError, MissingObjectError, ValidationError):
        return None
    matches = (part.number, part.first, part.rows) == (number, first, rows)
    return part if matches and content == written(part) else None


def is_sound(store: ObjectStore, identity: CacheIdentity, part: Part, codec: Codec) -> bool:
    """Whether the part's bytes are there, and are in everything what its record says.

    Raises:
        StorageError: The store cannot be read.
    """
    try:
        return describes(part, store.get(identity.key(part.name), part.sha256), codec)
    except (IntegrityError, MissingObjectError):
        return False


def publish_part(store: ObjectStore, identity: CacheIdentity, part: Part, stored: bytes, replace: bool) -> Part:
    """Write the part, then its record; when another writer was first with the record, that one counts.

    Args:
        store: Where to.
        identity: Of the cache.
        part: The record.
        stored: The part itself, as it is stored.
        replace: Whether there is a record that describes bytes that are no more.

    Returns:
        The record that counts.

    Raises:
        StorageError: The store cannot be read or written.
    """
    store.put(identity.key(part.name), stored, part.sha256)
    record, key = written(part), identity.key(record_name(part.number))
    digest = hashlib.sha256(record).hexdigest()
    if not replace:
        if store.put_if_absent(key, record, digest):
            return part
        if other := recorded_part(store, identity, part.number, part.first, part.rows):
            return other
    store.put(key, record, digest)
    return part


def missing_parts(store: ObjectStore, identity: CacheIdentity, parts: Sequence[Part]) -> list[Part]:
    """Parts of which the store does not list both the object, in its size, and the record.

    Raises:
        StorageError: The store cannot be read.
    """
    there = {entry.key: entry.bytes for entry in store.list(identity.key("part-"))}
    return [
        part
        for part in parts
        if there.get(identity.key(part.name)) != part.bytes or identity.key(record_name(part.number)) not in there
    ]


def publish_manifest(store: ObjectStore, manifest: Manifest) -> None:
    """Write the manifest unless there is one; replace one that is damaged or names other bytes than there now are.

    Raises:
        StorageError: The store cannot be read or written.
    """
    content, key = written(manifest), manifest.key(MANIFEST_NAME)
    digest = hashlib.sha256(content).hexdigest()
    if not store.put_if_absent(key, content, digest) and not _holds(store, key, content):
        store.put(key, content, digest)


def _holds(store: ObjectStore, key: str, content: bytes) -> bool:
    try:
        return store.get(key) == content
    except IntegrityError:
        return False
