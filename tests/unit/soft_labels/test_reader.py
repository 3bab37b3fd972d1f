from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components.errors import DataError, IntegrityError, StorageError
from components.soft_labels.manifest import Manifest, written
from components.soft_labels.mapped_part import MappedPart
from components.soft_labels.open_parts import OpenParts
from components.soft_labels.reader import SoftLabelReader, open_labels
from components.storage.folder_store import FolderStore
from tests.unit.soft_labels.reading_processes import SlowStore, WholeReader, peak_growth, read_right
from tests.unit.soft_labels.synthetic_cache import expected_labels, same_labels, synthetic_cache
from tests.unit.soft_labels.table_teacher import FarStore

POINTS = 250
EVERYTHING = torch.arange(POINTS)
CODECS: dict[str, dict[str, Any]] = {
    "dense": {"name": "dense"},
    "logit": {"name": "logit"},
    "top_k_tail": {"name": "top_k_tail", "k": 5},
    "sampled": {"name": "sampled", "k": 5},
    "hidden": {"name": "top_k_tail", "k": 5, "hidden_dim": 7},
}


@pytest.fixture
def manifest(store: FarStore) -> Manifest:
    return synthetic_cache(store, POINTS, 100, codec=CODECS["top_k_tail"], outcomes=30)


def reader_of(store: FolderStore, manifest: Manifest, tmp_path: Path, **options: Any) -> SoftLabelReader:
    return SoftLabelReader(store, manifest, tmp_path / "cache", **options)


def local_files(manifest: Manifest, tmp_path: Path) -> list[Path]:
    return [tmp_path / "cache" / f"{part.content_sha256}.safetensors" for part in manifest.parts]


def flip(path: Path, other: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def flip_and_set_back_the_clock(path: Path, other: Path) -> None:
    state = path.stat()
    flip(path, other)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def flip_in_the_header(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)


def cut(path: Path, other: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def cut_to_one_page(path: Path, other: Path) -> None:
    os.truncate(path, 100)


def empty(path: Path, other: Path) -> None:
    os.truncate(path, 0)


def zero(path: Path, other: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def swap(path: Path, other: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def swap_names(path: Path, other: Path) -> None:
    aside = path.with_name("aside")
    path.rename(aside)
    other.rename(path)
    aside.rename(other)


def delete(path: Path, other: Path) -> None:
    path.unlink()


DAMAGES = [
    flip,
    flip_and_set_back_the_clock,
    flip_in_the_header,
    cut,
    cut_to_one_page,
    empty,
    zero,
    swap,
    swap_names,
    delete,
]
# What leaves an open file as it is.
OF_NAMES_ONLY = [swap_names, delete]


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("kind", [FarStore, FolderStore])
@pytest.mark.parametrize("codec", CODECS)
def test_labels_come_in_the_order_of_the_points(
    tmp_path: Path, kind: type[FolderStore], codec: str, compression: Any
) -> None:
    store = kind(tmp_path / "store")
    outcomes = 1 if codec == "logit" else 70_000 if codec == "sampled" else 30
    manifest = synthetic_cache(store, POINTS, 60, codec=CODECS[codec], outcomes=outcomes, compression=compression)
    reader = reader_of(store, manifest, tmp_path)
    shuffled = torch.randperm(POINTS, generator=torch.Generator().manual_seed(1))
    for points in (shuffled, torch.tensor([249, 0, 0, 120]), torch.tensor([7]), torch.empty(0, dtype=torch.int64)):
        assert same_labels(reader.labels(points), expected_labels(store, manifest, points))


@pytest.mark.parametrize("point", [-1, POINTS])
def test_a_point_without_a_label_is_refused(store: FarStore, manifest: Manifest, tmp_path: Path, point: int) -> None:
    with pytest.raises(DataError, match="0 to 249"):
        reader_of(store, manifest, tmp_path).labels(torch.tensor([3, point]))


def test_only_the_parts_that_are_asked_for_are_fetched_and_only_once(
    store: FarStore, manifest: Manifest, tmp_path: Path
) -> None:
    for _ in range(2):
        reader = reader_of(store, manifest, tmp_path)
        for _ in range(2):
            reader.labels(torch.tensor([249, 5]))
    assert store.fetched == [manifest.key(manifest.parts[number].name) for number in (0, 2)]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_local_file_is_fetched_again_before_a_label_is_used(
    store: FarStore, manifest: Manifest, tmp_path: Path, damage: Callable[[Path, Path], None]
) -> None:
    right = reader_of(store, manifest, tmp_path).labels(EVERYTHING)
    store.fetched.clear()
    paths = local_files(manifest, tmp_path)
    damage(paths[0], paths[1])
    assert same_labels(reader_of(store, manifest, tmp_path).labels(EVERYTHING), right)
    assert len(store.fetched) == (2 if damage in (swap, swap_names) else 1)


@pytest.mark.parametrize("age", ["just fetched", "long there"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_damaged_while_it_is_in_use_is_fetched_again_before_a_label_is_used(
    store: FarStore, manifest: Manifest, tmp_path: Path, damage: Callable[[Path, Path], None], age: str
) -> None:
    reader = reader_of(store, manifest, tmp_path)
    right = reader.labels(EVERYTHING)
    if age == "long there":
        time.sleep(0.06)
        reader.labels(EVERYTHING)
    store.fetched.clear()
    paths = local_files(manifest, tmp_path)
    damage(paths[0], paths[1])
    assert same_labels(reader.labels(EVERYTHING), right)
    assert len(store.fetched) == (0 if damage in OF_NAMES_ONLY else 2 if damage is swap else 1)
    assert same_labels(reader_of(store, manifest, tmp_path).labels(EVERYTHING), right)


def undetected(store: FarStore, manifest: Manifest, tmp_path: Path, times: int, damages: list[Any]) -> int:
    """Random damages to local files at random times, and how many of them reach the labels."""
    dice = random.Random(0)
    right = expected_labels(store, manifest, EVERYTHING)
    reader = reader_of(store, manifest, tmp_path)
    wrong = 0
    for _ in range(times):
        if dice.random() < 0.3 or not all(path.exists() for path in local_files(manifest, tmp_path)):
            reader = reader_of(store, manifest, tmp_path)
        reader.labels(EVERYTHING)
        dice.choice(damages)(*dice.sample(local_files(manifest, tmp_path), 2))
        if dice.random() < 0.3:
            reader = reader_of(store, manifest, tmp_path)
        try:
            wrong += not same_labels(reader.labels(EVERYTHING), right)
        except IntegrityError:
            wrong += 1
    return wrong


def test_of_two_hundred_damages_none_reaches_a_label(store: FarStore, manifest: Manifest, tmp_path: Path) -> None:
    assert undetected(store, manifest, tmp_path, 200, DAMAGES) == 0


def test_damages_reach_the_labels_of_a_reader_that_checks_once(
    store: FarStore, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The naive twin."""

    def is_sound(self: MappedPart) -> bool:
        return hasattr(self, "_map") or self._read_through()

    monkeypatch.setattr(MappedPart, "is_sound", is_sound)
    # Cut files would end the process: it touches what they no longer have.
    assert undetected(store, manifest, tmp_path, 20, [flip, flip_and_set_back_the_clock, zero, swap]) > 10


@pytest.mark.parametrize("in_use", [False, True])
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("kind", [FarStore, FolderStore])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_in_the_store_is_named_and_gives_no_label(
    tmp_path: Path, damage: Callable[[Path, Path], None], kind: type[FolderStore], compression: Any, in_use: bool
) -> None:
    store = kind(tmp_path / "store")
    manifest = synthetic_cache(store, POINTS, 100, outcomes=30, compression=compression)
    keys = [manifest.key(part.name) for part in manifest.parts]
    reader = reader_of(store, manifest, tmp_path)
    points = torch.tensor([200, 3])
    in_place = kind is FolderStore and compression == "none"
    if in_use:
        right = reader.labels(points)
    damage(tmp_path / "store" / keys[0], tmp_path / "store" / keys[1])
    if in_use and (not in_place or damage in OF_NAMES_ONLY):
        # What was fetched, or is open, is what it was.
        assert same_labels(reader.labels(points), right)
        return
    with pytest.raises((IntegrityError, StorageError)) as caught:
        reader.labels(points)
    assert isinstance(caught.value, StorageError if damage is delete else IntegrityError)
    assert keys[0] in str(caught.value)
    assert "recstill run SCENARIO --from soft_labels --force" in str(caught.value)
    assert not local_files(manifest, tmp_path)[0].exists()


def test_a_part_that_is_put_right_in_the_store_is_read_again(manifest: Manifest, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    reader = reader_of(store, manifest, tmp_path)
    right = reader.labels(EVERYTHING)
    key = manifest.key(manifest.parts[0].name)
    content = store.get(key)
    flip(tmp_path / "store" / key, Path())
    with pytest.raises(IntegrityError, match="part-00000"):
        reader.labels(EVERYTHING)
    store.put(key, content, manifest.parts[0].sha256)
    assert same_labels(reader.labels(EVERYTHING), right)


def test_a_manifest_of_other_content_is_not_believed(store: FarStore, manifest: Manifest, tmp_path: Path) -> None:
    """The bytes are those that were signed for, but not what the manifest says of them."""
    lying = manifest.model_copy(update={"codec": {"name": "top_k_tail", "k": 7}})
    part = manifest.parts[0]
    store.put(lying.key(part.name), store.get(manifest.key(part.name)), part.sha256)
    with pytest.raises(IntegrityError, match="does not hold 100 rows"):
        reader_of(store, lying, tmp_path).labels(torch.tensor([3]))


def test_parts_of_a_folder_of_this_machine_are_not_copied(manifest: Manifest, tmp_path: Path) -> None:
    reader = reader_of(FolderStore(tmp_path / "store"), manifest, tmp_path)
    reader.prefetch()
    reader.labels(EVERYTHING)
    assert not (tmp_path / "cache").exists()


def test_a_file_that_only_loses_its_name_or_its_date_is_not_fetched_again(
    store: FarStore, manifest: Manifest, tmp_path: Path
) -> None:
    reader = reader_of(store, manifest, tmp_path)
    right = reader.labels(EVERYTHING)
    paths = local_files(manifest, tmp_path)
    os.utime(paths[0])
    paths[1].chmod(0o600)
    paths[2].unlink()
    assert same_labels(reader.labels(EVERYTHING), right)
    assert len(store.fetched) == 3


def test_few_files_are_open_at_once(
    store: FarStore, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.soft_labels.open_parts._MOST_OPEN", 2)
    reader = reader_of(store, manifest, tmp_path)
    before = open_files()
    for _ in range(5):
        assert same_labels(reader.labels(EVERYTHING), expected_labels(store, manifest, EVERYTHING))
    assert open_files() - before == 2 * 2
    assert len(store.fetched) == 3
    reader.close()
    assert open_files() == before


def test_a_file_that_is_opened_again_and_was_not_touched_is_not_read_through_again(
    store: FarStore, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.soft_labels.open_parts._MOST_OPEN", 1)
    reader = reader_of(store, manifest, tmp_path)
    right = reader.labels(EVERYTHING)
    time.sleep(0.06)
    reader.labels(EVERYTHING)
    with monkeypatch.context() as patch:
        patch.setattr(MappedPart, "_read_through", lambda self: pytest.fail("read through"))
        assert same_labels(reader.labels(EVERYTHING), right)
    for path in local_files(manifest, tmp_path):
        flip_and_set_back_the_clock(path, path)
    assert same_labels(reader.labels(EVERYTHING), right)


@pytest.mark.parametrize(("kind", "compression"), [(FolderStore, "none"), (FarStore, "none"), (FarStore, "zstd")])
def test_memory_does_not_grow_with_the_cache(tmp_path: Path, kind: type[FolderStore], compression: Any) -> None:
    small, large = growths(SoftLabelReader, kind(tmp_path / "store"), tmp_path, compression)
    assert abs(large - small) < 20 << 20
    assert large < 60 << 20


def test_memory_of_a_reader_that_holds_the_whole_cache_grows_with_it(tmp_path: Path) -> None:
    """The naive twin."""
    small, large = growths(WholeReader, FolderStore(tmp_path / "store"), tmp_path, "none")
    assert large - small > 80 << 20


def growths(kind: type, store: FolderStore, tmp_path: Path, compression: Any) -> list[int]:
    """Growth of the peak of memory at 40 and at 160 MB, with 16 MB of mapped files."""
    spawn = multiprocessing.get_context("spawn")
    found = []
    for rows in (600_000, 2_400_000):
        manifest = synthetic_cache(store, rows, 60_000, compression=compression)
        answers = spawn.SimpleQueue()
        arguments = (kind, store, manifest, tmp_path / "cache", answers)
        process = spawn.Process(target=peak_growth, args=arguments, kwargs={"resident_bytes": 16 << 20})
        process.start()
        found.append(answers.get())
        process.join()
    return found


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_reader_works_in_another_process(
    store: FarStore, manifest: Manifest, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = multiprocessing.get_context(method)
    reader = reader_of(store, manifest, tmp_path)
    reader.labels(EVERYTHING)
    answers = context.SimpleQueue()
    # At this moment another thread reads.
    with reader._parts._lock:
        process = context.Process(target=read_right, args=(reader, FolderStore(tmp_path / "store"), 5, 0, answers))
        process.start()
    assert answers.get() == 5
    process.join()
    assert same_labels(pickle.loads(pickle.dumps(reader)).labels(EVERYTHING), reader.labels(EVERYTHING))


def test_threads_share_a_reader(store: FarStore, manifest: Manifest, tmp_path: Path) -> None:
    room = manifest.parts[0].bytes + manifest.parts[1].bytes
    reader = reader_of(store, manifest, tmp_path, cache_bytes=room, resident_bytes=10_000)
    answers: list[int] = []
    answers_of = type("Answers", (), {"put": lambda self, value: answers.append(value)})()
    truth = FolderStore(tmp_path / "store")
    threads = [threading.Thread(target=read_right, args=(reader, truth, 10, seed, answers_of)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [10] * 4


def test_parts_come_in_the_background(tmp_path: Path) -> None:
    store = SlowStore(tmp_path / "store", 0.01)
    manifest = synthetic_cache(store, POINTS, 20, outcomes=30)
    with reader_of(store, manifest, tmp_path) as reader:
        reader.prefetch()
        wait_until(lambda: all(path.exists() for path in local_files(manifest, tmp_path)))
        reader.prefetch()
        reader.labels(EVERYTHING)
    assert sorted(store.requests()) == [manifest.key(part.name) for part in manifest.parts]
    assert store.requests()[0] == manifest.key(manifest.parts[0].name)


def test_no_more_comes_in_the_background_than_the_disk_cache_may_hold(
    store: FarStore, manifest: Manifest, tmp_path: Path
) -> None:
    room = manifest.parts[0].bytes + manifest.parts[1].bytes
    reader = reader_of(store, manifest, tmp_path, cache_bytes=room)
    reader.prefetch()
    wait_for_threads("soft-label prefetch")
    assert store.fetched == [manifest.key(part.name) for part in manifest.parts[:2]]
    assert same_labels(reader.labels(EVERYTHING), expected_labels(store, manifest, EVERYTHING))


def test_a_part_that_is_under_way_is_waited_for(tmp_path: Path) -> None:
    store = SlowStore(tmp_path / "store", 0.3)
    manifest = synthetic_cache(store, POINTS, 100, outcomes=30)
    reader = reader_of(store, manifest, tmp_path)
    reader.prefetch()
    wait_until(store.requests)
    assert same_labels(reader.labels(EVERYTHING), expected_labels(store, manifest, EVERYTHING))
    assert sorted(store.requests()) == [manifest.key(part.name) for part in manifest.parts]


class RefusingStore(FarStore):
    refuses = True

    def get_to_file(self, key: str, path: Path, sha256: str) -> None:
        if self.refuses:
            self.fetched.append(key)
            raise StorageError("the store refuses the credentials")
        super().get_to_file(key, path, sha256)


def test_what_fails_in_the_background_is_silent_and_is_raised_once_its_part_is_asked_for(
    manifest: Manifest, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = RefusingStore(tmp_path / "store")
    reader = reader_of(store, manifest, tmp_path)
    reader.prefetch()
    wait_for_threads("soft-label prefetch")
    with pytest.raises(StorageError, match="refuses the credentials"):
        reader.labels(EVERYTHING)
    assert len(store.fetched) == 1
    store.refuses = False
    assert same_labels(reader.labels(EVERYTHING), expected_labels(store, manifest, EVERYTHING))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_nothing_more_is_fetched_for_a_reader_that_is_given_up(tmp_path: Path, how: str) -> None:
    store = SlowStore(tmp_path / "store", 0.2)
    manifest = synthetic_cache(store, POINTS, 20, outcomes=30)
    reader = reader_of(store, manifest, tmp_path)
    reader.prefetch()
    wait_until(store.requests)
    started = time.monotonic()
    if how == "closed":
        reader.close()
    else:
        del reader
    assert time.monotonic() - started < 0.1
    wait_for_threads("soft-label prefetch")
    assert len(store.requests()) == 1


def test_a_reader_is_closed_while_a_thread_reads(
    store: FarStore, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = reader_of(store, manifest, tmp_path)
    reader.labels(EVERYTHING)
    before = open_files()
    take = OpenParts._take

    def slowly(self: OpenParts, *arguments: Any) -> None:
        time.sleep(0.1)
        take(self, *arguments)

    monkeypatch.setattr(OpenParts, "_take", slowly)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(reader.labels(EVERYTHING)))
    thread.start()
    time.sleep(0.05)
    reader.close()
    thread.join()
    assert same_labels(found[0], expected_labels(store, manifest, EVERYTHING))
    assert open_files() == before - 2 * 3


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def wait_until(happens: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.005)


def wait_for_threads(name: str) -> None:
    wait_until(lambda: all(thread.name != name for thread in threading.enumerate()))


def test_the_manifest_of_a_stage_opens_the_cache_for_its_data_set_only(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


@pytest.mark.parametrize("codec", [{"name": "best"}, {"name": "top_k_tail"}, {"name": "sampled", "k": "many"}])
def test_a_whole_manifest_of_an_unknown_codec_is_refused(
    store: FarStore, manifest: Manifest, tmp_path: Path, codec: dict
) -> None:
    odd = manifest.model_copy(update={"codec": codec})
    odd = odd.model_copy(update={"id": odd.cache_id})
    with pytest.raises(IntegrityError, match="codec is not known"):
        reader_of(store, odd, tmp_path)
