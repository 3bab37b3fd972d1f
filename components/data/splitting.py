"""Which events are learned from, which decide when to stop, and which measure the result."""

from __future__ import annotations

import numpy as np

from components.data.times import SECOND, iso
from components.errors import DataError
from components.settings.prepare import PrepareSettings

TRAIN, VALIDATION, TEST = 0, 1, 2


def split_events(timestamp: np.ndarray, offsets: np.ndarray, settings: PrepareSettings) -> np.ndarray:
    """The split of each event: in each user's history first training, then validation, then test events.

    Args:
        timestamp: ``(E,)`` int64, ascending within each user.
        offsets: ``(users + 1,)`` where each user's events begin.
        settings: The kind of split and its shares.

    Returns:
        ``(E,)`` int8: 0 training, 1 validation, 2 test.

    Raises:
        DataError: Ties in time leave a temporal split without events of one kind, or the source gives no split.
    """
    if settings.split == "leave_one_out":
        return _leave_one_out(offsets)
    if settings.split == "given":
        return _given(timestamp)
    return split_by_time(timestamp, settings.validation_share, settings.test_share)


def _leave_one_out(offsets: np.ndarray) -> np.ndarray:
    split = np.full(offsets[-1], TRAIN, dtype=np.int8)
    split[offsets[1:] - 1] = TEST
    split[offsets[1:] - 2] = VALIDATION
    return split


def _given(timestamp: np.ndarray) -> np.ndarray:
    """Sources with a split of their own have the number of an event's part as its time, in seconds."""
    split = timestamp // SECOND
    if not np.array_equal(np.unique(split), [TRAIN, VALIDATION, TEST]) or (timestamp % SECOND).any():
        raise DataError(
            "the source comes with no split of its own, and prepare.split is 'given'",
            "Set prepare.split in params.yaml to leave_one_out or temporal, or bring a source of kind split-table.",
        )
    return split.astype(np.int8)


def split_by_time(timestamp: np.ndarray, validation_share: float, test_share: float) -> np.ndarray:
    """Splits at two instants, the same for all users; events of the very instant belong to the later side, so that
    nothing is learned from a time that is also measured.

    Args:
        timestamp: ``(E,)`` int64.
        validation_share: Share of the events that is validated on.
        test_share: Share of the events that is tested on.

    Returns:
        ``(E,)`` int8: 0 training, 1 validation, 2 test.

    Raises:
        DataError: Ties in time leave no events of one kind.
    """
    count = len(timestamp)
    places = [min(round(count * share), count - 1) for share in (1 - validation_share - test_share, 1 - test_share)]
    begins = np.partition(timestamp, places)[places]
    split = np.searchsorted(begins, timestamp, side="right").astype(np.int8)
    missing = [name for number, name in enumerate(("training", "validation", "test")) if not (split == number).any()]
    if missing:
        raise DataError(
            f"the temporal split leaves no {' and no '.join(missing)} events: too many of the {count:,} events share "
            f"a time (validation would begin at {iso(int(begins[0]))}, test at {iso(int(begins[1]))})",
            "Change prepare.validation_share or prepare.test_share in params.yaml, or use split: leave_one_out.",
        )
    return split
