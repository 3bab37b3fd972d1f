"""Killed writers: no reader ever sees half a cache, and the next run ends as if nothing had been."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from components.storage.contract import ObjectStore
from components.storage.folder_store import FolderStore
from components.storage.object_store import open_store
from tests.integration.killed_writers import (
    Kill,
    LoggedTeacher,
    Outcome,
    Write,
    before_step,
    changes_below,
    dataset_of,
    ended,
    for_children,
    forked,
    interrupted,
    random_times,
    requests,
    steps_of,
    write,
    write_singly,
)
from tests.integration.naive import InPlaceStore, write_manifest_first, write_what_is_missing

KILLS = 40


class Place(NamedTuple):
    """A store twice: for this process, and for those forked from it."""

    own: ObjectStore
    of_children: ObjectStore
    log: Path
    is_step: Callable[..., bool]

    def run(self, kills: list[Kill], write: Write = write, enough: int | None = None) -> Outcome:
        return interrupted(self.own, self.of_children, kills, self.log, write, enough=enough)

    def killed_at_random_times(self, kills: int, write: Write = write) -> Outcome:
        assert ended(forked(self._writer(write, "first"))) == 0  # what happens once in a new bucket is not timed
        # Some moments fall behind the end of a writer that is faster than the one that was timed, which on a machine
        # that was busy just then can be most of them.
        moments = random_times(self._writer(write, "timed"), 5 * kills, seed=3)
        return self.run(moments, write, enough=kills)

    def killed_at_every_step(self, write: Write = write_singly, every: int = 1) -> Outcome:
        assert ended(forked(self._writer(write, "first"))) == 0  # makes the folders that all caches share
        steps = steps_of(self._writer(write, "counted"), self.is_step)
        assert steps > 8
        kills = [before_step(number, self.is_step) for number in range(1, steps + 1, every)]
        outcome = self.run(kills, write)
        assert outcome.kills == len(kills)
        return outcome

    def _writer(self, write: Write, name: str) -> Callable[[], object]:
        dataset = dataset_of(f"{write.__name__} {name}")
        return functools.partial(write, self.of_children, LoggedTeacher(self.log), dataset)


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    log = tmp_path / "asked"
    if request.param == "folder":
        return in_folder(FolderStore, tmp_path)
    address = f"s3://{request.getfixturevalue('s3_environment').new_bucket()}"
    return Place(open_store(address), for_children(address), log, requests)


def in_folder(kind: type[FolderStore], tmp_path: Path) -> Place:
    folder = tmp_path / "store"
    return Place(kind(folder), kind(folder), tmp_path / "asked", changes_below(folder))


def test_no_kill_at_a_random_time_leaves_half_a_cache_and_the_rerun_is_identical(place: Place) -> None:
    outcome = place.killed_at_random_times(KILLS)
    print(f"random kills, {place.own.address[:4]}: {outcome}")
    assert outcome.kills == KILLS
    assert outcome.is_flawless


def test_no_kill_at_a_step_of_publishing_leaves_half_a_cache_and_the_rerun_is_identical(place: Place) -> None:
    outcome = place.killed_at_every_step()
    print(f"a kill at every step, {place.own.address[:4]}: {outcome}")
    assert outcome.is_flawless


def test_random_kills_find_a_writer_that_announces_the_cache_first(place: Place) -> None:
    outcome = place.killed_at_random_times(KILLS // 4, write_manifest_first)
    print(f"naive, manifest first, random kills, {place.own.address[:4]}: {outcome}")
    assert outcome.partial_seen > 0


def test_kills_at_every_step_find_a_writer_that_announces_the_cache_first(tmp_path: Path) -> None:
    outcome = in_folder(FolderStore, tmp_path).killed_at_every_step(write_manifest_first, every=2)
    print(f"naive, manifest first, a kill at every other step: {outcome}")
    assert outcome.partial_seen > 0


def test_the_same_kills_find_a_store_that_writes_files_in_place(tmp_path: Path) -> None:
    outcome = in_folder(InPlaceStore, tmp_path).killed_at_every_step(write_what_is_missing, every=2)
    print(f"naive, in place, a kill at every other step: {outcome}")
    assert outcome.partial_seen > 0
    assert outcome.not_identical > 0
