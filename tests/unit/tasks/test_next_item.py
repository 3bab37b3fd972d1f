from dataclasses import replace

import numpy as np
import pytest
import torch

from components.data.dataset import PreparedDataset
from components.errors import SettingsError
from components.tasks.batch import Batch
from components.tasks.building import task_of
from components.tasks.next_item import NextItem

LENGTH = 6


@pytest.fixture
def task(prepared: PreparedDataset) -> NextItem:
    return NextItem(prepared, LENGTH)


def check_against_the_data_set(batch: Batch, data: PreparedDataset) -> None:
    """Each target is the event of its point, and the position that predicts it was read from the event before."""
    items, valid = batch.inputs
    row_of_point = np.flatnonzero(data.point >= 0)
    rows = row_of_point[batch.points.numpy()]
    assert batch.targets.tolist() == data.item[rows].tolist()
    assert items.reshape(-1)[valid].tolist() == data.item[rows - 1].tolist()


def test_an_epoch_holds_every_training_point_once_with_its_own_target(
    task: NextItem, prepared: PreparedDataset
) -> None:
    for epoch in range(3):
        batches = list(task.training_batches(4, seed=1, epoch=epoch))
        for batch in batches:
            check_against_the_data_set(batch, prepared)
            assert batch.step_points == len(batch.targets)
        points = torch.cat([batch.points for batch in batches])
        assert sorted(points.tolist()) == list(range(prepared.points))


def test_over_the_epochs_a_point_is_learned_from_in_proportion_to_its_weight(prepared: PreparedDataset) -> None:
    weight = np.random.default_rng(0).choice([0.5, 1.0, 2.0], len(prepared.item)).astype(np.float32)
    task = NextItem(replace(prepared, weight=weight), LENGTH)
    counts = np.zeros(prepared.points)
    for epoch in range(60):
        for batch in task.training_batches(4, seed=1, epoch=epoch):
            check_against_the_data_set(batch, prepared)
            assert batch.step_points == len(batch.targets)
            counts += np.bincount(batch.points.numpy(), minlength=prepared.points)
    assert counts.max() == 60
    for value in (0.5, 1.0, 2.0):
        drawn = counts[weight[prepared.point >= 0] == value]
        assert drawn.mean() / 60 == pytest.approx(value / 2, abs=0.03)
    # Scores of the teacher are of every point, whatever it weighs.
    scored = torch.cat([batch.points for batch in task.scoring_batches(0, prepared.points, 4)])
    assert scored.tolist() == list(range(prepared.points))


def test_devices_divide_the_points_that_are_drawn(prepared: PreparedDataset) -> None:
    weight = np.random.default_rng(0).choice([0.1, 2.0], len(prepared.item)).astype(np.float32)
    task = NextItem(replace(prepared, weight=weight), LENGTH)
    whole = task.training_batches(4, seed=0, epoch=0)
    shares = [task.training_batches(4, seed=0, epoch=0, rank=rank, world=3) for rank in range(3)]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert sorted(torch.cat([part.points for part in parts]).tolist()) == sorted(batch.points.tolist())
        assert {part.step_points for part in parts} == {len(batch.targets)}


def test_a_window_never_holds_the_target_at_or_after_the_position_that_predicts_it(task: NextItem) -> None:
    data = task.dataset
    rows = np.flatnonzero(data.point >= 0)
    for batch in task.training_batches(4, seed=0, epoch=0):
        items, valid = batch.inputs
        for place, point in zip(valid.tolist(), batch.points.tolist(), strict=True):
            row, column = divmod(place, items.shape[1])
            target = rows[point]
            # What a causal network sees at that position is the history that ends just before the target.
            assert items[row, : column + 1].tolist() == data.item[target - column - 1 : target].tolist()


def test_a_step_has_no_more_positions_than_its_full_windows(task: NextItem) -> None:
    sizes = [batch.inputs[0].numel() for batch in task.training_batches(4, seed=0, epoch=0)]
    assert max(sizes) <= 4 * LENGTH
    assert len(sizes) > 1


def test_order_depends_on_seed_and_epoch_only(task: NextItem) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat([batch.points for batch in task.training_batches(4, seed=seed, epoch=epoch)]).tolist()

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4) and order(0, 3) != order(1, 3)


@pytest.mark.parametrize("world", [2, 3, 40])
def test_devices_divide_each_step_among_them(task: NextItem, world: int) -> None:
    whole = task.training_batches(4, seed=0, epoch=0)
    shares = [task.training_batches(4, seed=0, epoch=0, rank=rank, world=world) for rank in range(world)]
    assert {len(share) for share in shares} == {len(whole)}
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert sorted(torch.cat([part.points for part in parts]).tolist()) == sorted(batch.points.tolist())
        assert {part.step_points for part in parts} == {len(batch.points)}


@pytest.mark.parametrize(("first", "stop"), [(0, None), (17, 91), (40, 41), (5, 5)])
def test_scoring_gives_exactly_the_points_of_a_range_in_order(task: NextItem, first: int, stop: int | None) -> None:
    stop = task.points if stop is None else stop
    batches = list(task.scoring_batches(first, stop, 3))
    for batch in batches:
        check_against_the_data_set(batch, task.dataset)
    assert [point for batch in batches for point in batch.points.tolist()] == list(range(first, stop))


def test_a_point_has_the_same_context_in_whatever_range_it_is_scored(task: NextItem) -> None:
    def contexts(batches: list[Batch]) -> dict[int, list[int]]:
        found = {}
        for batch in batches:
            items, valid = batch.inputs
            for place, point in zip(valid.tolist(), batch.points.tolist(), strict=True):
                row, column = divmod(place, items.shape[1])
                found[point] = items[row, : column + 1].tolist()
        return found

    whole = contexts(list(task.scoring_batches(0, task.points, 16)))
    part = contexts(list(task.scoring_batches(23, 61, 2)))
    assert part == {point: whole[point] for point in range(23, 61)}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_predicts_each_held_out_event_from_all_before_it(
    task: NextItem, prepared: PreparedDataset, split: str
) -> None:
    users = []
    for batch in task.evaluation_batches(split, 7):
        items, last = batch.inputs
        assert batch.feed["items"].tolist() == items.tolist()
        for row, user in enumerate(batch.users.tolist()):
            begin, end = prepared.offsets[user], prepared.offsets[user + 1]
            target = int(np.flatnonzero(prepared.split[begin:end] == ("validation", "test").index(split) + 1)[0])
            history = prepared.item[begin : begin + target].tolist()
            length = int(batch.feed["length"][row])
            assert batch.targets[row] == prepared.item[begin + target]
            assert items[row, :length].tolist() == history[-LENGTH:]
            assert int(last[row]) == row * items.shape[1] + length - 1
            seen_rows, seen_items = batch.seen
            assert seen_items[seen_rows == row].tolist() == history
        users += batch.users.tolist()
    assert sorted(users) == list(range(prepared.users))


def test_calibration_histories_hold_training_events_only(task: NextItem, prepared: PreparedDataset) -> None:
    feeds = task.calibration(100, seed=0)
    assert sum(len(feed["length"]) for feed in feeds) == 100
    training = prepared.item.astype(np.int64).copy()
    training[prepared.split > 0] = -1
    text = " ".join(map(str, training.tolist()))
    for feed in feeds:
        for row, length in zip(feed["items"], feed["length"], strict=True):
            assert 1 <= length <= LENGTH and (row[length:] == 0).all()
            assert " ".join(map(str, row[:length].tolist())) in text
    again = task.calibration(100, seed=0)
    assert all((one["items"] == other["items"]).all() for one, other in zip(feeds, again, strict=True))


def test_an_unknown_task_is_refused_by_name(prepared: PreparedDataset) -> None:
    with pytest.raises(SettingsError, match="'next_itm'"):
        task_of("next_itm", prepared, LENGTH)
