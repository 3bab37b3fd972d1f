"""What was live when, for the questions of the audit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from components.storage.contract import ObjectStore

if TYPE_CHECKING:
    from components.provenance.signing import PublicKey
    from components.serving.pointer import Switch


def switches_of(store: ObjectStore, name: str, keys: Sequence[PublicKey]) -> list[Switch]:
    """All switches of a model, oldest first.

    Raises:
        IntegrityError: The log is not whole, or an entry is not signed by a trusted key.
        StorageError: The store cannot be read.
    """
    from components.serving.pointer import history

    return history(store, name, keys)
