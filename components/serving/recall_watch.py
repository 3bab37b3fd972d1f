"""What is recalled, as a running service knows it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from components.errors import IntegrityError
from components.provenance.recalls import Recall, in_force, recall_log, recall_of, recalls_of
from components.provenance.signed_log import LogEntry
from components.storage.contract import ObjectStore

if TYPE_CHECKING:
    from components.provenance.signing import PublicKey
    from components.serving.pointer import Switch


class RecallWatch:
    """Follows the log of recalls, at the cost of one question for a size while nothing is written.

    What it has seen it does not forget, whatever becomes of the log.

    Args:
        store: Where the log is.
        keys: The keys that are trusted now; asked for whenever something is read.
    """

    def __init__(self, store: ObjectStore, keys: Callable[[], Sequence[PublicKey]]) -> None:
        self._log, self._keys = recall_log(store), keys
        self._entries: list[LogEntry] = []
        self._recalls: list[Recall] = []
        self._looking = threading.Lock()

    def look(self, switch: Switch | None = None) -> None:
        """Take in what is new.

        Args:
            switch: What is live: it names how far the log went when it was made.

        Raises:
            IntegrityError: The log is not whole, or lacks what the switch names: what is recalled cannot be known.
            StorageError: The store cannot be read.
        """
        with self._looking:
            keys = self._keys()
            new = self._log.newer(self._entries[-1], keys) if self._entries else self._log.entries(keys)
            if new:
                known = [*self._entries, *new]
                self._recalls = in_force(recall_of(entry) for entry in known)
                self._entries = known
            if switch is not None and switch.recalls:
                there = self._entries[switch.recalls - 1].digest if switch.recalls <= len(self._entries) else ""
                if there != switch.recalls_digest:
                    raise IntegrityError(
                        f"what is recalled cannot be known: {self._log} has not got the entry {switch.recalls} that "
                        f"the switch to {switch} names: it was cut or replaced",
                        "Put it back from a copy of the store: `recstill verify --repair --from ADDRESS`.",
                    )

    def against(self, ids: Iterable[str]) -> list[Recall]:
        """The recalls in force that name one of some content ids."""
        return recalls_of(ids, self._recalls)
