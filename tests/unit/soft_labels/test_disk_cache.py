from __future__ import annotations

import errno
import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest
import torch

from components.errors import StorageError
from components.soft_labels.disk_cache import DiskCache
from components.soft_labels.manifest import Manifest
from components.soft_labels.reader import SoftLabelReader
from components.storage.atomic import new_file
from components.storage.folder_store import FolderStore
from tests.unit.soft_labels.reading_processes import KillingStore, SlowStore, fetch, read_right
from tests.unit.soft_labels.synthetic_cache import synthetic_cache
from tests.unit.soft_labels.table_teacher import FarStore

SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def manifest(store: FarStore) -> Manifest:
    return synthetic_cache(store, 400, 100, outcomes=30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def use(disk: DiskCache, store: FolderStore, manifest: Manifest, number: int) -> None:
    part = manifest.parts[number]
    stream = disk.opened(part) or disk.fetch(store, manifest.key(part.name), part)
    stream.close()


def held(folder: Path, manifest: Manifest) -> list[int]:
    return [part.number for part in manifest.parts if (folder / f"{part.content_sha256}.safetensors").exists()]


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_the_least_recently_used_part_is_removed_first(store: FarStore, manifest: Manifest, folder: Path) -> None:
    room = sum(part.content_bytes for part in manifest.parts[:3])
    expected = {0: [0], 1: [0, 1], 2: [0, 1, 2], 3: [1, 2, 3]}
    disk = DiskCache(folder, room)
    for number, left in expected.items():
        use(disk, store, manifest, number)
        assert held(folder, manifest) == left
    use(disk, store, manifest, 1)
    use(DiskCache(folder, room), store, manifest, 0)
    assert held(folder, manifest) == [0, 1, 3]
    assert len(store.fetched) == 5
    assert {path.name for path in (folder / "used").iterdir()} == {manifest.parts[n].content_sha256 for n in (0, 1, 3)}


def test_using_a_part_leaves_the_times_of_its_file_alone(store: FarStore, manifest: Manifest, folder: Path) -> None:
    disk = DiskCache(folder)
    use(disk, store, manifest, 0)
    path = folder / f"{manifest.parts[0].content_sha256}.safetensors"
    before = path.stat()
    use(disk, store, manifest, 0)
    assert (path.stat().st_mtime_ns, path.stat().st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)


def test_one_part_larger_than_the_bound_stays_until_the_next_comes(
    store: FarStore, manifest: Manifest, folder: Path
) -> None:
    disk = DiskCache(folder, 1)
    for number in (0, 1):
        use(disk, store, manifest, number)
        assert held(folder, manifest) == [number]


def test_a_compressed_part_lies_unpacked_under_the_digest_of_its_content(tmp_path: Path, folder: Path) -> None:
    store = FarStore(tmp_path / "store")
    manifest = synthetic_cache(store, 400, 100, outcomes=30, compression="zstd")
    use(DiskCache(folder), store, manifest, 2)
    assert held(folder, manifest) == [2]
    assert DiskCache(folder).holds(manifest.parts[2])
    assert not hidden(folder)


def test_of_many_that_want_the_same_part_one_fetches_it(tmp_path: Path, folder: Path) -> None:
    store = SlowStore(tmp_path / "store", 0.3)
    manifest = synthetic_cache(store, 100, 100, outcomes=30)
    processes = [SPAWN.Process(target=fetch, args=(store, manifest, folder)) for _ in range(2)]
    threads = [threading.Thread(target=fetch, args=(store, manifest, folder)) for _ in range(3)]
    for worker in threads:
        worker.start()
    for worker in threads:
        worker.join()
    assert len(store.requests()) == 1
    (folder / f"{manifest.parts[0].content_sha256}.safetensors").unlink()
    for worker in processes:
        worker.start()
    for worker in processes:
        worker.join()
        assert worker.exitcode == 0
    # They need not have started at the same time; then the second fetches what it was told is not there.
    assert len(store.requests()) in (2, 3)
    assert not hidden(folder)


def test_processes_share_a_folder_that_is_too_small_for_them(
    store: FarStore, manifest: Manifest, tmp_path: Path, folder: Path
) -> None:
    """Each evicts what the other maps and is about to open."""
    room = 2 * manifest.parts[0].content_bytes
    answers = SPAWN.SimpleQueue()
    reader = SoftLabelReader(store, manifest, folder, cache_bytes=room)
    truth = FolderStore(tmp_path / "store")
    processes = [SPAWN.Process(target=read_right, args=(reader, truth, 30, seed, answers)) for seed in range(3)]
    for process in processes:
        process.start()
    assert [answers.get() for _ in processes] == [30, 30, 30]
    for process in processes:
        process.join()
    assert not hidden(folder)
    assert len(held(folder, manifest)) <= 2


def test_what_a_killed_process_has_left_is_removed_at_the_next_use(
    store: FarStore, manifest: Manifest, tmp_path: Path, folder: Path
) -> None:
    process = SPAWN.Process(target=fetch, args=(KillingStore(tmp_path / "store"), manifest, folder))
    process.start()
    process.join()
    assert process.exitcode == -9
    assert len(hidden(folder)) == 2
    use(DiskCache(folder), store, manifest, 1)
    assert not hidden(folder)
    use(DiskCache(folder), store, manifest, 0)
    assert held(folder, manifest) == [0, 1]


def test_what_another_process_is_at_is_not_removed(tmp_path: Path, folder: Path) -> None:
    store = SlowStore(tmp_path / "store", 0.5)
    manifest = synthetic_cache(store, 200, 100, outcomes=30)
    process = SPAWN.Process(target=fetch, args=(store, manifest, folder))
    process.start()
    until = time.monotonic() + 20
    while not store.requests() and time.monotonic() < until:
        time.sleep(0.005)
    (folder / f".{manifest.parts[0].content_sha256}.safetensors.half").write_bytes(b"at work")
    use(DiskCache(folder), FarStore(tmp_path / "store"), manifest, 1)
    assert len(hidden(folder)) == 2
    process.join()
    assert process.exitcode == 0
    assert held(folder, manifest) == [0, 1]


def test_temporary_files_of_unknown_origin_are_removed_when_they_are_old(
    store: FarStore, manifest: Manifest, folder: Path
) -> None:
    folder.mkdir()
    for name in (".old", ".new"):
        (folder / name).write_bytes(b"x")
    os.utime(folder / ".old", (0, 0))
    use(DiskCache(folder), store, manifest, 0)
    assert hidden(folder) == [".new"]


class FullStore(FarStore):
    """The disk is full when half of a part has arrived."""

    def get_to_file(self, key: str, path: Path, sha256: str) -> None:
        with new_file(path) as temporary:
            temporary.write_bytes(self.get(key)[:1000])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(manifest: Manifest, tmp_path: Path, folder: Path) -> None:
    reader = SoftLabelReader(FullStore(tmp_path / "store"), manifest, folder)
    for _ in range(2):
        with pytest.raises(StorageError, match="no space left to write") as caught:
            reader.labels(torch.arange(manifest.rows))
        assert "Free some disk space" in caught.value.remedy
        assert [path.name for path in folder.iterdir()] == []


def test_a_folder_that_cannot_be_made_is_one_clear_error(store: FarStore, manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be written"):
        SoftLabelReader(store, manifest, tmp_path / "file" / "cache").labels(torch.arange(manifest.rows))


@pytest.mark.parametrize("said", [errno.ENOLCK, errno.ENOSYS, errno.EINVAL])
def test_on_a_file_system_without_locks_several_may_bring_a_part_and_all_get_it(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, said: int
) -> None:
    def refuse(handle: int, operation: int) -> None:
        raise OSError(said, os.strerror(said))

    monkeypatch.setattr("fcntl.flock", refuse)
    store = SlowStore(tmp_path / "store", 0.2)
    manifest = synthetic_cache(store, 100, 100, outcomes=30)
    ended: list[bool] = []

    def bring() -> None:
        use(DiskCache(folder), store, manifest, 0)
        ended.append(True)

    threads = [threading.Thread(target=bring, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join(20)
    assert ended == [True] * 4
    assert held(folder, manifest) == [0] and not hidden(folder)


def test_a_disk_that_fails_is_one_clear_error(
    store: FarStore, manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(handle: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        use(DiskCache(folder), store, manifest, 0)
