"""Sixteen processes that write the same cache at once: one manifest, and all of them return it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import pytest

from components.soft_labels.manifest import read_manifest, written
from components.storage.contract import ObjectStore
from components.storage.folder_store import FolderStore
from components.storage.object_store import open_store
from tests.integration.killed_writers import Board, LoggedTeacher, dataset_of, ended, for_children, forked, write
from tests.integration.naive import LookThenPut

WRITERS = 16


class Race(NamedTuple):
    """What came of one."""

    returned: set[bytes]
    """The different manifests that writers returned."""
    stored: list[bytes]
    """All manifests in the store."""
    missing: int
    """Parts that a returned manifest names and that are not in the store as it says."""


def race(own: ObjectStore, of_children: ObjectStore, folder: Path, name: str) -> Race:
    """Each writer's teacher differs by a little, as on different machines: whose bytes count must be decided."""
    dataset, board = dataset_of(name), Board("ready")

    def work(number: int) -> None:
        teacher = LoggedTeacher(folder / f"asked-{number}", noise=number + 1)
        while not board["ready"]:
            time.sleep(0.001)
        (folder / f"{name}-{number}").write_bytes(written(write(of_children, teacher, dataset)))

    processes = [forked(lambda number=number: work(number)) for number in range(WRITERS)]  # type: ignore[misc]
    board["ready"] = 1
    assert [ended(process) for process in processes] == [0] * WRITERS
    returned = {(folder / f"{name}-{number}").read_bytes() for number in range(WRITERS)}
    keys = [entry.key for entry in own.list("") if entry.key.endswith("manifest.json")]
    manifests = [read_manifest(content, "race") for content in returned]
    stored = [own.get(key) for key in keys if key.startswith(manifests[0].key(""))]
    missing = sum(own.size(one.key(part.name)) != part.bytes for one in manifests for part in one.parts)
    return Race(returned, stored, missing)


@pytest.fixture(params=["folder", "s3"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ObjectStore, ObjectStore]:
    if request.param == "folder":
        return FolderStore(tmp_path / "store"), FolderStore(tmp_path / "store")
    address = f"s3://{request.getfixturevalue('s3_environment').new_bucket()}"
    return open_store(address), for_children(address)


def different(found: Race) -> int:
    return len(found.returned | set(found.stored))


def test_of_16_writers_of_the_same_cache_all_end_with_the_one_manifest(
    stores: tuple[ObjectStore, ObjectStore], tmp_path: Path
) -> None:
    own, of_children = stores
    found = race(own, of_children, tmp_path, "race")
    print(f"writers={WRITERS}, {own.address[:4]}: manifests={different(found)} missing_parts={found.missing}")
    assert len(found.stored) == 1
    assert found.returned == set(found.stored)
    assert found.missing == 0


def test_the_same_race_finds_a_store_that_looks_before_it_puts(
    stores: tuple[ObjectStore, ObjectStore], tmp_path: Path
) -> None:
    own, of_children = stores
    found: list[int] = []
    # Nobody knows how far apart sixteen processes are; a few races are enough.
    while len(found) < 10 and max(found, default=1) == 1:
        found.append(different(race(own, LookThenPut(of_children), tmp_path, f"race-{len(found)}")))  # type: ignore[arg-type]
    print(f"naive, look then put, {own.address[:4]}: writers={WRITERS} manifests={found}")
    assert max(found) > 1
