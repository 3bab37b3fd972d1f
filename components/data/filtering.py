"""The k-core of the interactions: every user and every item has enough events."""

from __future__ import annotations

import numpy as np


def k_core(user: np.ndarray, item: np.ndarray, min_user_events: int, min_item_events: int) -> np.ndarray:
    """Which events remain when users and items below their floors are dropped until nothing changes.

    The result does not depend on the order of dropping: it is the largest set of events that satisfies both floors
    (Seidman, "Network structure and minimum degree", 1983, for a bipartite graph with two floors).

    Args:
        user: ``(E,)`` integers from 0.
        item: ``(E,)`` integers from 0.
        min_user_events: Events that each remaining user has at least.
        min_item_events: Events that each remaining item has at least.

    Returns:
        ``(E,)`` bool.
    """
    kept = np.arange(len(user))
    while len(kept):
        users, items = np.bincount(user[kept]), np.bincount(item[kept])
        enough = (users[user[kept]] >= min_user_events) & (items[item[kept]] >= min_item_events)
        if enough.all():
            break
        kept = kept[enough]
    mask = np.zeros(len(user), dtype=bool)
    mask[kept] = True
    return mask
