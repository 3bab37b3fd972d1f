"""A store with released versions, and its pointer, as a deployment leaves them."""

from __future__ import annotations

import itertools
from pathlib import Path

from components.provenance.signing import signing_key
from components.serving.pointer import Switch, current, switch
from components.serving.releases import Release, publish
from components.storage.contract import ObjectStore
from components.storage.folder_store import FolderStore


class Released:
    """Versions 1 and up of one name, below ``folder/.recstill``, where a service started in ``folder`` looks.

    Args:
        folder: Any.
        name: The packages' scenario.
        packages: What version 1, 2, ... hold.
        store: Another store than the folder's.
    """

    def __init__(self, folder: Path, name: str, *packages: Path, store: ObjectStore | None = None) -> None:
        self.name = name
        self.folder = folder / ".recstill" / "store"
        self.store = FolderStore(self.folder) if store is None else store
        self._key = signing_key(folder / ".recstill" / "keys")
        self.versions: list[Release] = [
            publish(
                self.store,
                package,
                {"passed": True, "note": number},
                name=name,
                version=number,
                commit="1" * 40,
                created="2026-01-01T00:00:00+00:00",
                key=self._key,
            )
            for number, package in enumerate(packages, start=1)
        ]
        self._turns = itertools.cycle(self.versions[1:] + self.versions[:1])

    def point(self, version: int) -> Switch:
        """Make a version live."""
        before = current(self.store, self.name, [self._key.public])
        expected = before.number if before else 0
        release = self.versions[version - 1]
        key = self._key
        return switch(
            self.store,
            self.name,
            release,
            expected=expected,
            kind="deploy",
            who="test",
            why="",
            key=key,
            keys=[key.public],
        )

    def next(self) -> Switch:
        """Make another version live: 2, 3, ..., 1, 2, ..."""
        return self.point(next(self._turns).version)
