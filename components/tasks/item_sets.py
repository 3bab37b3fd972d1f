"""The different items of each user, cut and padded as networks take them."""

from __future__ import annotations

import numpy as np

from components.tasks.batch import Feed


class ItemSets:
    """Each user's different items, the newest last.

    Args:
        user: ``(E,)`` who, ascending.
        item: ``(E,)`` took what, in the order in which each user did.
        users: How many users there are.
        most: Items of a user that are kept: the newest ones. 0: all.

    Attributes:
        sizes: ``(users,)`` int64, items of each user.
    """

    def __init__(self, user: np.ndarray, item: np.ndarray, users: int, most: int = 0) -> None:
        user, item = user.astype(np.int64), item.astype(np.int64)
        # The last of several events of a user with the same item is the one that stays.
        pair = user * (int(item.max(initial=0)) + 1) + item
        _, last = np.unique(pair[::-1], return_index=True)
        kept = np.sort(len(pair) - 1 - last)
        user, item = user[kept], item[kept]
        if most:
            ends = np.cumsum(np.bincount(user, minlength=users))
            newest = ends[user] - np.arange(len(user)) <= most
            user, item = user[newest], item[newest]
        self._item = item
        self.sizes = np.bincount(user, minlength=users)
        self._starts = np.cumsum(self.sizes) - self.sizes

    def pairs(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place in ``users`` (ascending) and item of all that these users have, int64."""
        size = self.sizes[users]
        row = np.repeat(np.arange(len(users)), size)
        place = np.arange(len(row)) - np.repeat(np.cumsum(size) - size, size)
        return row, self._item[self._starts[users][row] + place]

    def feed(self, users: np.ndarray) -> Feed:
        """``items`` ``(B, length)`` and ``length`` ``(B,)`` of these users."""
        items, length = self.padded(*self.pairs(users), len(users), fill=0)
        return {"items": items, "length": length}

    @staticmethod
    def padded(row: np.ndarray, item: np.ndarray, rows: int, *, fill: int) -> tuple[np.ndarray, np.ndarray]:
        """From pairs to a matrix ``(rows, length)``, padded on the right, and how many of each row count.

        Args:
            row: ``(E,)`` ascending.
            item: ``(E,)``.
            rows: How many there are; a row may have nothing.
            fill: What stands behind the items of a row.
        """
        length = np.bincount(row, minlength=rows)
        found = np.full((rows, max(1, int(length.max(initial=0)))), fill, dtype=np.int64)
        found[row, np.arange(len(row)) - np.repeat(np.cumsum(length) - length, length)] = item
        return found, length
