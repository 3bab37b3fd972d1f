"""People whose rows a source may hold and no run may see: they are left out before anything else is done."""

from __future__ import annotations

import polars as pl

from components.data.ids import as_ids
from components.data.rows import RawRows
from components.data.subject_key import SUBJECT_VARIABLE, SubjectKey
from components.errors import SettingsError
from components.settings.source import Exclusion


class Excluded:
    """Tells which rows are those of people who are excluded.

    Args:
        exclusion: Of params.yaml; None: nobody is excluded.
        key: The key of this machine; None: there is none.

    Raises:
        SettingsError: Somebody is excluded, and the key is missing or another one.
    """

    def __init__(self, exclusion: Exclusion | None, key: SubjectKey | None) -> None:
        self._marks = frozenset(exclusion.subjects) if exclusion else frozenset()
        self._known: dict[str, bool] = {}
        self._key = key
        if not self._marks or exclusion is None:
            return
        ask = f"Set {SUBJECT_VARIABLE} to it (or to a file that holds it), from whoever ran `recstill erase`."
        if key is None:
            raise SettingsError(
                f"source.exclude names {len(self._marks)} people by key {exclusion.key}, and there is no key here to "
                "know them by",
                ask,
            )
        if key.id != exclusion.key:
            raise SettingsError(
                f"source.exclude names people by key {exclusion.key}, and the key here is {key.id}: nobody would be "
                "left out",
                ask,
            )

    def __len__(self) -> int:
        return len(self._marks)

    def rows(self, batch: RawRows) -> pl.Series | None:
        """Which rows of a batch are to be left out, ``(E,)`` bool; None when nobody is excluded."""
        key = self._key
        if not self._marks or key is None:
            return None
        users = as_ids(batch.rows["user"])
        here = users.unique().drop_nulls().to_list()
        for user in here:
            if user not in self._known:
                self._known[user] = key.mark(user) in self._marks
        out = [user for user in here if self._known[user]]
        return users.is_in(out).fill_null(False)
