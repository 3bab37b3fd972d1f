"""A disk that is full: one clear error, and nothing half-written; with room again the work goes on."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from components.errors import StorageError
from components.soft_labels.manifest import Manifest
from components.soft_labels.reader import SoftLabelReader
from components.storage.contract import ObjectStore
from components.storage.folder_store import FolderStore
from components.storage.object_store import open_store
from tests.integration.killed_writers import LoggedTeacher, dataset_of, is_partial, write
from tests.integration.naive import InPlaceStore, TrustingReader

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
KIB = 1024


class SmallDisk:
    """A file system of its own in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def resize(self, kib: int, *more: str) -> None:
        options = ",".join([f"size={kib}k", *more])
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)], check=True)

    def files(self) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    found = SmallDisk(tmp_path / "disk")
    try:
        found.resize(12)
    except subprocess.CalledProcessError:
        pytest.skip("this machine does not let even root mount a file system")
    yield found
    subprocess.run(["umount", "-l", str(found.folder)], check=True)


@pytest.fixture
def cache(s3_environment, tmp_path: Path) -> tuple[ObjectStore, Manifest]:
    store = open_store(f"s3://{s3_environment.new_bucket()}")
    return store, write(store, LoggedTeacher(tmp_path / "asked"), dataset_of("disk"))


@pytest.mark.parametrize("how", ["bytes", "file", "if absent"])
def test_a_put_into_a_full_folder_leaves_nothing(disk: SmallDisk, tmp_path: Path, how: str) -> None:
    store, content = FolderStore(disk.folder / "store"), os.urandom(20 * KIB)
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / "source").write_bytes(content)
    puts: dict[str, Callable[[], object]] = {
        "bytes": lambda: store.put("a/key", content, digest),
        "file": lambda: store.put("a/key", tmp_path / "source", digest),
        "if absent": lambda: store.put_if_absent("a/key", content, digest),
    }
    with pytest.raises(StorageError, match="no space left to write"):
        puts[how]()
    assert disk.files() == {}
    assert list(store.list("")) == []
    disk.resize(64, "remount")
    puts[how]()
    assert store.get("a/key", digest) == content


def test_a_writer_on_a_full_disk_ends_and_goes_on_when_there_is_room(disk: SmallDisk, tmp_path: Path) -> None:
    store, teacher, dataset = FolderStore(disk.folder), LoggedTeacher(tmp_path / "asked"), dataset_of("full")
    with pytest.raises(StorageError, match="no space left to write"):
        write(store, teacher, dataset)
    assert is_partial(store, dataset) is None
    assert not [name for name in disk.files() if name.startswith(".")]
    disk.resize(256, "remount")
    write(store, teacher, dataset)
    assert is_partial(store, dataset) is False


def test_a_reader_whose_disk_is_full_says_so_and_keeps_nothing_half(
    disk: SmallDisk, cache: tuple[ObjectStore, Manifest]
) -> None:
    store, manifest = cache
    whole = {part.content_bytes for part in manifest.parts}
    with SoftLabelReader(store, manifest, disk.folder / "cache") as reader:
        for _ in range(2):
            with pytest.raises(StorageError, match="no space left to write"):
                reader.labels(torch.arange(manifest.rows))
            assert {size for size in disk.files().values() if size} <= whole
        disk.resize(256, "remount")
        found = reader.labels(torch.arange(manifest.rows))
    assert len(found.log_probs) == manifest.rows


def test_a_file_that_is_fetched_onto_a_full_disk_does_not_appear(
    disk: SmallDisk, cache: tuple[ObjectStore, Manifest]
) -> None:
    store, _ = cache
    content = os.urandom(20 * KIB)
    digest = hashlib.sha256(content).hexdigest()
    store.put("key", content, digest)
    with pytest.raises(StorageError, match="no space left to write"):
        store.get_to_file("key", disk.folder / "target", digest)
    assert disk.files() == {}


def test_the_same_full_disk_finds_who_writes_in_place(disk: SmallDisk, cache: tuple[ObjectStore, Manifest]) -> None:
    store, manifest = cache
    content = os.urandom(20 * KIB)
    with pytest.raises(OSError, match="No space left"):
        InPlaceStore(disk.folder / "store").put("a/key", content, hashlib.sha256(content).hexdigest())
    half_object = disk.files().get("key", 0)
    (disk.folder / "store/a/key").unlink()
    with pytest.raises(OSError, match="No space left"):
        TrustingReader(store, manifest, disk.folder / "cache").labels(torch.arange(manifest.rows))
    half_parts = set(disk.files().values()) - {part.bytes for part in manifest.parts}
    print(f"naive, in place on a full disk: half an object of {half_object} bytes, half parts of {half_parts}")
    assert 0 < half_object < len(content)
    assert half_parts
