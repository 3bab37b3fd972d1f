import numpy as np
import pytest

from components.data.dataset import PreparedDataset
from components.tasks.windows import Windows, disjoint_windows, fixed_windows


def scored_rows(windows: Windows) -> list[int]:
    ends = windows.start + windows.length
    return [row for end, count in zip(ends, windows.scored, strict=True) for row in range(end - count + 1, end + 1)]


@pytest.mark.parametrize("max_length", [2, 5, 7, 50])
def test_every_training_point_is_scored_by_exactly_one_window(prepared: PreparedDataset, max_length: int) -> None:
    targets = np.flatnonzero(prepared.point >= 0).tolist()
    assert sorted(scored_rows(disjoint_windows(prepared, max_length, np.random.default_rng(0)))) == targets
    assert scored_rows(fixed_windows(prepared, max_length)) == targets


@pytest.mark.parametrize("max_length", [2, 5, 7, 50])
def test_a_window_stays_within_one_user_and_within_the_training_events(
    prepared: PreparedDataset, max_length: int
) -> None:
    for windows in (
        disjoint_windows(prepared, max_length, np.random.default_rng(0)),
        fixed_windows(prepared, max_length),
    ):
        last = windows.start + windows.length  # the row that is predicted last
        assert (windows.length <= max_length).all() and (windows.scored <= windows.length).all()
        assert (prepared.user[windows.start] == prepared.user[last]).all()
        assert (prepared.split[last] == 0).all()


def test_long_histories_are_cut_elsewhere_in_another_epoch(prepared: PreparedDataset) -> None:
    cuts = [set(disjoint_windows(prepared, 4, np.random.default_rng(epoch)).start.tolist()) for epoch in range(2)]
    assert cuts[0] != cuts[1]


def test_fixed_windows_give_half_a_window_of_context_beyond_the_first(prepared: PreparedDataset) -> None:
    windows = fixed_windows(prepared, 6)
    later = windows.start != prepared.offsets[prepared.user[windows.start]]
    assert later.any()
    assert (windows.length[later] == 6).all() and (windows.scored[later] <= 3).all()
