from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from components.errors import DataError, IntegrityError, StorageError
from components.settings.soft_labels import SoftLabelSettings
from components.soft_labels.codec import codec_of
from components.soft_labels.manifest import Manifest, written
from components.soft_labels.reader import SoftLabelReader, open_labels
from components.storage.folder_store import FolderStore
from tests.unit.soft_labels.table_teacher import OUTCOMES, POINTS, FarStore, TableTeacher, cache_in


@pytest.fixture
def manifest(store: FarStore, teacher: TableTeacher) -> Manifest:
    return cache_in(store, teacher)


def flip(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_in_the_header(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)


def cut(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path, other: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def swap(path: Path, other: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def delete(path: Path, other: Path) -> None:
    path.unlink()


DAMAGES = [flip, flip_in_the_header, cut, empty, zero, swap, delete]


@pytest.mark.parametrize("codec", ["dense", "top_k_tail"])
@pytest.mark.parametrize("memory_bytes", [0, 1 << 20], ids=["mapped", "in_memory"])
def test_labels_come_in_the_order_of_the_points(
    store: FarStore, teacher: TableTeacher, tmp_path: Path, codec: str, memory_bytes: int
) -> None:
    settings = SoftLabelSettings(codec=codec, k=5, rows_per_part=60)
    manifest = cache_in(store, teacher, settings)
    reader = SoftLabelReader(store, manifest, tmp_path / "cache", memory_bytes=memory_bytes)
    random = torch.Generator().manual_seed(1)
    form = codec_of(manifest.codec, OUTCOMES)
    for points in (torch.randperm(POINTS, generator=random), torch.tensor([249, 0, 0, 120]), torch.tensor([7])):
        expected = form.decode(form.encode(teacher.table[points]))
        found = reader.labels(points)
        assert found.outcomes == expected.outcomes
        for one, other in zip(found[:3], expected[:3], strict=True):
            assert (one is None and other is None) or torch.equal(one, other)


def test_no_points_have_no_labels(store: FarStore, manifest: Manifest, tmp_path: Path) -> None:
    found = SoftLabelReader(store, manifest, tmp_path / "cache").labels(torch.empty(0, dtype=torch.int64))
    assert found.log_probs.shape == (0, 8)


@pytest.mark.parametrize("point", [-1, POINTS])
def test_a_point_without_a_label_is_refused(store: FarStore, manifest: Manifest, tmp_path: Path, point: int) -> None:
    with pytest.raises(DataError, match="0 to 249"):
        SoftLabelReader(store, manifest, tmp_path / "cache").labels(torch.tensor([3, point]))


def test_only_the_parts_that_are_asked_for_are_fetched_and_only_once(
    store: FarStore, manifest: Manifest, tmp_path: Path
) -> None:
    for _ in range(2):
        reader = SoftLabelReader(store, manifest, tmp_path / "cache")
        for _ in range(2):
            reader.labels(torch.tensor([249, 5]))
    assert store.fetched == [manifest.key(manifest.parts[number].name) for number in (0, 2)]


@pytest.mark.parametrize("memory_bytes", [0, 1 << 20], ids=["mapped", "in_memory"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_local_file_is_fetched_again_before_a_label_is_used(
    store: FarStore, manifest: Manifest, tmp_path: Path, damage: Callable, memory_bytes: int
) -> None:
    everything = torch.arange(POINTS)
    folder = tmp_path / "cache"
    right = SoftLabelReader(store, manifest, folder).labels(everything)
    store.fetched.clear()
    paths = [folder / f"{part.sha256}.safetensors" for part in manifest.parts]
    damage(paths[0], paths[1])
    found = SoftLabelReader(store, manifest, folder, memory_bytes=memory_bytes).labels(everything)
    assert all(torch.equal(one, other) for one, other in zip(found[:3], right[:3], strict=True))
    assert len(store.fetched) == (2 if damage is swap else 1)


@pytest.mark.parametrize("kind", [FarStore, FolderStore])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_in_the_store_is_named_and_gives_no_label(
    store: FarStore, manifest: Manifest, tmp_path: Path, damage: Callable, kind: type[FolderStore]
) -> None:
    keys = [manifest.key(part.name) for part in manifest.parts]
    damage(tmp_path / "store" / keys[0], tmp_path / "store" / keys[1])
    reader = SoftLabelReader(kind(tmp_path / "store"), manifest, tmp_path / "cache")
    with pytest.raises((IntegrityError, StorageError)) as caught:
        reader.labels(torch.tensor([200, 3]))
    assert isinstance(caught.value, StorageError if damage is delete else IntegrityError)
    assert keys[0] in str(caught.value)
    assert "recstill run SCENARIO --from soft_labels --force" in str(caught.value)
    assert not (tmp_path / "cache" / f"{manifest.parts[0].sha256}.safetensors").exists()


def test_a_manifest_of_other_content_is_not_believed(store: FarStore, manifest: Manifest, tmp_path: Path) -> None:
    """The bytes are those that were signed for, but not what the manifest says of them."""
    lying = manifest.model_copy(update={"codec": {"name": "top_k_tail", "k": 7}})
    store.put(
        lying.key(manifest.parts[0].name), store.get(manifest.key(manifest.parts[0].name)), manifest.parts[0].sha256
    )
    with pytest.raises(IntegrityError, match="does not hold 100 rows"):
        SoftLabelReader(store, lying, tmp_path / "cache").labels(torch.tensor([3]))


def test_parts_of_a_folder_of_this_machine_are_not_copied(store: FarStore, manifest: Manifest, tmp_path: Path) -> None:
    SoftLabelReader(FolderStore(tmp_path / "store"), manifest, tmp_path / "cache").labels(torch.arange(POINTS))
    assert not (tmp_path / "cache").exists()


def test_the_disk_cache_keeps_what_was_used_last(store: FarStore, manifest: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    paths = [folder / f"{part.sha256}.safetensors" for part in manifest.parts]
    room = manifest.parts[0].bytes + manifest.parts[1].bytes

    def use(point: int) -> None:
        # Uses within one tick of the clock could not be told apart.
        for path in paths:
            if path.exists():
                os.utime(path, (path.stat().st_atime - 100, path.stat().st_mtime - 100))
        SoftLabelReader(store, manifest, folder, cache_bytes=room).labels(torch.tensor([point]))

    use(0)
    use(100)
    use(0)
    use(200)
    assert [path.exists() for path in paths] == [True, False, True]
    (folder / ".abandoned").write_bytes(b"x")
    os.utime(folder / ".abandoned", (0, 0))
    use(100)
    assert [path.exists() for path in paths] == [False, True, True]
    assert not (folder / ".abandoned").exists()


def test_a_cache_larger_than_its_share_of_memory_is_mapped(store: FarStore, manifest: Manifest, tmp_path: Path) -> None:
    def owner(array: object) -> object:
        while isinstance(array, np.ndarray | memoryview):
            array = array.base if isinstance(array, np.ndarray) else array.obj
        return array

    reader = SoftLabelReader(store, manifest, tmp_path / "cache", memory_bytes=manifest.bytes - 1)
    reader.labels(torch.arange(POINTS))
    assert reader._whole is None
    assert {type(owner(column)) for columns in reader._parts.values() for column in columns.values()} == {mmap.mmap}
    reader = SoftLabelReader(store, manifest, tmp_path / "cache", memory_bytes=manifest.bytes)
    reader.labels(torch.arange(POINTS))
    assert reader._whole is not None
    assert reader._parts == {}


def test_the_manifest_of_a_stage_opens_the_cache_for_its_data_set_only(
    store: FarStore, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(written(manifest))
    monkeypatch.setenv("RECSTILL_STORE", f"file://{tmp_path}/store")
    assert len(open_labels(path, "b" * 64).labels(torch.arange(3)).log_probs) == 3
    with pytest.raises(DataError, match="another data set"):
        open_labels(path, "c" * 64)
    with pytest.raises(DataError, match="missing"):
        open_labels(tmp_path / "other.json", "b" * 64)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(IntegrityError, match=r"manifest\.json"):
        open_labels(path, "b" * 64)
