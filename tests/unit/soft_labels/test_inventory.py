from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from components.errors import DataError
from components.soft_labels.collecting import Unreachable, delete, unreachable, whole_cache
from components.soft_labels.inventory import PREFIX, CacheEntry, cache_named, read_cache, read_caches
from components.soft_labels.manifest import Manifest
from components.soft_labels.verifying import Verdict, verify_cache
from components.storage.folder_store import FolderStore
from tests.unit.soft_labels.table_teacher import POINTS, SETTINGS, TableTeacher, cache_in

DAY = 86_400.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> FolderStore:
    return FolderStore(folder)


def put(store: FolderStore, key: str, content: bytes = b"x") -> None:
    store.put(key, content, hashlib.sha256(content).hexdigest())


def entry(store: FolderStore, manifest: Manifest) -> CacheEntry:
    found = read_cache(store, manifest.id)
    assert found is not None
    return found


def aged(folder: Path, key: str, days: float) -> None:
    for path in folder.glob(key):
        os.utime(path, (time.time() - days * DAY,) * 2)


def kinds(verdict: Verdict) -> list[tuple[str, str]]:
    return [(finding.kind, finding.key.rpartition("/")[2].partition("-")[0]) for finding in verdict.findings]


def test_every_cache_is_listed_in_its_state_and_a_damaged_one_hides_no_other(store: FolderStore) -> None:
    whole = cache_in(store, TableTeacher())
    cut = cache_in(store, TableTeacher(), SETTINGS.model_copy(update={"k": 4}))
    blank = cache_in(store, TableTeacher(), SETTINGS.model_copy(update={"k": 3}))
    unfinished = cache_in(store, TableTeacher(), SETTINGS.model_copy(update={"k": 2}))
    put(store, cut.key(cut.parts[1].name), b"cut")
    put(store, blank.key("manifest.json"), b"{")
    store.delete(unfinished.key("manifest.json"))
    put(store, "soft-labels/notes.txt")
    put(store, "soft-labels/no-id/manifest.json")
    put(store, f"other/{whole.id}/manifest.json")
    found = {cache.id: cache for cache in read_caches(store)}
    assert {name: cache.state for name, cache in found.items()} == {
        whole.id: "complete", cut.id: "damaged", blank.id: "damaged", unfinished.id: "incomplete",
    }  # fmt: skip
    assert found[whole.id].manifest == whole and found[whole.id].bytes == whole.bytes
    assert cut.parts[1].name in found[cut.id].problem
    assert "not a whole manifest" in found[blank.id].problem
    assert len(found[unfinished.id].records) == len(unfinished.parts)


def test_a_manifest_in_the_place_of_another_cache_is_damage(store: FolderStore) -> None:
    manifest = cache_in(store, TableTeacher())
    put(store, f"{PREFIX}{'c' * 64}/manifest.json", store.get(manifest.key("manifest.json")))
    states = {cache.id: cache.state for cache in read_caches(store)}
    assert states == {manifest.id: "complete", "c" * 64: "damaged"}


def test_an_id_may_be_abbreviated_to_six_digits_that_are_of_one_cache_only() -> None:
    caches = [CacheEntry(name * 32, (), None, None, "") for name in ("ab", "cd")]
    caches.append(CacheEntry("ab" * 31 + "cd", (), None, None, ""))
    assert cache_named(caches, "cdcdcd") is caches[1]
    assert cache_named(caches, "ab" * 32) is caches[0]
    assert cache_named(caches, "effeff") is None and cache_named(caches, "movielens") is None
    with pytest.raises(DataError, match=r"any of 2 caches: (ab)+ and (ab)+"):
        cache_named(caches, "ababab")
    with pytest.raises(DataError, match="too short"):
        cache_named(caches, "cdcdc")


def swap_parts(folder: Path) -> None:
    one, other, *_ = sorted(folder.rglob("part-*.safetensors*"))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], tuple[str, str]]] = {
    "part removed": (lambda f: next(f.rglob("part-00001-*")).unlink(), ("missing", "part")),
    "part cut": (lambda f: os.truncate(next(f.rglob("part-00001-*")), 100), ("damaged", "part")),
    "part emptied": (lambda f: next(f.rglob("part-00001-*")).write_bytes(b""), ("damaged", "part")),
    "parts swapped": (swap_parts, ("damaged", "part")),
    "record removed": (lambda f: next(f.rglob("part-00001.json")).unlink(), ("missing", "part")),
    "record of another part": (
        lambda f: next(f.rglob("part-00001.json")).write_bytes(next(f.rglob("part-00000.json")).read_bytes()),
        ("damaged", "part"),
    ),
    "manifest with another byte at its end": (
        lambda f: next(f.rglob("manifest.json")).open("ab").write(b" "),
        ("damaged", "manifest.json"),
    ),
    "manifest of nothing": (lambda f: next(f.rglob("manifest.json")).write_bytes(b"[]"), ("damaged", "manifest.json")),
    "an object too many": (lambda f: (next(f.rglob("manifest.json")).parent / "more").touch(), ("extra", "more")),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_verify_names_what_is_missing_damaged_or_extra(
    store: FolderStore, folder: Path, damage: str, compression: str
) -> None:
    manifest = cache_in(store, TableTeacher(), SETTINGS.model_copy(update={"compression": compression}))
    before = verify_cache(store, entry(store, manifest), workers=2)
    assert before.sound and before.findings == () and before.parts == len(manifest.parts)
    change, expected = DAMAGES[damage]
    change(folder)
    verdict = verify_cache(store, entry(store, manifest), workers=2)
    assert expected in kinds(verdict)
    assert verdict.sound == (expected[0] == "extra")


def flips_found(store: FolderStore, folder: Path, manifest: Manifest, check: Callable[[CacheEntry], bool]) -> int:
    """How many of 120 flipped bytes, anywhere in the cache, one at a time, a check notices."""
    chance = random.Random(0)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    found = 0
    for _ in range(120):
        path = chance.choice(files)
        content = path.read_bytes()
        place = chance.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << chance.randrange(8))]) + content[place + 1 :])
        found += not check(entry(store, manifest))
        path.write_bytes(content)
    assert check(entry(store, manifest)), "all is as it was"
    return found


def test_verify_finds_every_flipped_byte(store: FolderStore, folder: Path) -> None:
    manifest = cache_in(store, TableTeacher())
    assert flips_found(store, folder, manifest, lambda cache: verify_cache(store, cache, workers=1).sound) == 120


def test_the_same_flips_pass_a_naive_check_of_names_and_sizes(store: FolderStore, folder: Path) -> None:
    manifest = cache_in(store, TableTeacher())
    assert flips_found(store, folder, manifest, lambda cache: cache.state == "complete") < 60


class CountingStore(FolderStore):
    """Knows how many parts were read at once, and which at all."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.read: list[str] = []
        self.at_once = self.most = 0
        self._lock = threading.Lock()

    def get(self, key: str, sha256: str | None = None) -> bytes:
        if "safetensors" not in key:
            return super().get(key, sha256)
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            self.read.append(key)
        time.sleep(0.01)
        try:
            return super().get(key, sha256)
        finally:
            with self._lock:
                self.at_once -= 1


def test_verify_reads_every_part_from_the_store_and_holds_one_a_worker(folder: Path) -> None:
    store = CountingStore(folder)
    manifest = cache_in(store, TableTeacher(), SETTINGS.model_copy(update={"rows_per_part": 10}))
    store.read.clear()
    store.most = 0
    rows: list[int] = []
    verify_cache(store, entry(store, manifest), workers=3, advance=rows.append)
    assert sorted(store.read) == sorted(manifest.key(part.name) for part in manifest.parts)
    assert 1 < store.most <= 3
    assert sum(rows) == POINTS


def test_what_is_there_of_an_incomplete_cache_is_verified_too(store: FolderStore, folder: Path) -> None:
    manifest = cache_in(store, TableTeacher())
    store.delete(manifest.key("manifest.json"))
    assert verify_cache(store, entry(store, manifest), workers=1).findings == ()
    next(folder.rglob("part-00002-*")).write_bytes(b"x")
    assert kinds(verify_cache(store, entry(store, manifest), workers=1)) == [("damaged", "part")]


def named(store: FolderStore, *, pinned: str = "", unreferenced: bool = False) -> set[str]:
    found = unreachable(
        store,
        read_caches(store),
        before=time.time() - DAY,
        untouchable=lambda cache: cache.id == pinned,
        unreferenced=lambda cache: unreferenced,
    )
    return {one.entry.key for one in found}


def test_only_old_objects_that_no_manifest_names_are_unreachable(store: FolderStore, folder: Path) -> None:
    manifest = cache_in(store, TableTeacher())
    strays = [manifest.key(name) for name in ("part-00001-0123456789abcdef.safetensors", "part-00007.json")]
    strays.append(manifest.key("inputs/0123/job.json"))
    for key in (*strays, manifest.key("part-00002-0123456789abcdef.safetensors"), "elsewhere/part-00000.json"):
        put(store, key)
    for key in (*strays, "elsewhere/*", f"soft-labels/{manifest.id}/part-00000*", "soft-labels/*/manifest.json"):
        aged(folder, key, 2)
    assert named(store) == set(strays)
    assert named(store, pinned=manifest.id) == set()


def test_an_incomplete_cache_is_unreachable_when_its_newest_object_is_old(store: FolderStore, folder: Path) -> None:
    manifest = cache_in(store, TableTeacher())
    store.delete(manifest.key("manifest.json"))
    aged(folder, "soft-labels/*/*", 2)
    everything = {found.key for found in store.list("")}
    assert named(store) == everything
    assert named(store, pinned=manifest.id) == set()
    # A writer goes on from old parts: nothing of what it reuses may go.
    aged(folder, "soft-labels/*/part-00002.json", 0)
    assert named(store) == set()


def test_a_damaged_cache_is_left_to_be_healed(store: FolderStore, folder: Path) -> None:
    manifest = cache_in(store, TableTeacher())
    put(store, manifest.key("manifest.json"), b"{")
    aged(folder, "soft-labels/*/*", 2)
    assert named(store) == set()
    assert named(store, unreferenced=True) == {found.key for found in store.list("")}


def test_temporary_files_of_killed_writers_are_unreachable_when_they_are_old(store: FolderStore, folder: Path) -> None:
    manifest = cache_in(store, TableTeacher())
    place = folder / "soft-labels" / manifest.id
    for name in (".old.abc", ".young.abc"):
        (place / name).write_bytes(b"half")
    (folder / ".elsewhere").write_bytes(b"half")
    aged(folder, "**/.old.abc", 2)
    aged(folder, ".elsewhere", 2)
    assert named(store) == {f"soft-labels/{manifest.id}/.old.abc"}
    found = unreachable(store, [], before=time.time() - DAY, untouchable=lambda _: False, unreferenced=lambda _: False)
    assert [one.entry.key for one in delete(store, found)] == [f"soft-labels/{manifest.id}/.old.abc"]
    assert not (place / ".old.abc").exists() and (place / ".young.abc").exists()


class Stopped(KeyboardInterrupt):
    pass


class StoppingStore(FolderStore):
    """Is interrupted at the n-th deletion."""

    left = 10**9

    def delete(self, key: str) -> None:
        if self.left <= 0:
            raise Stopped
        self.left -= 1
        super().delete(key)


def partial_caches_seen(folder: Path, remove: Callable[[FolderStore, CacheEntry], object]) -> int:
    """At how many points an interrupted removal leaves a manifest whose parts are gone."""
    seen = 0
    for stop in range(9):
        store = StoppingStore(folder / str(stop))
        manifest = cache_in(store, TableTeacher())
        store.left = stop
        try:
            remove(store, entry(store, manifest))
        except Stopped:
            store.left = 10**9
            seen += entry(store, manifest).state == "damaged"
            remove(store, entry(store, manifest))
        assert list(store.list("")) == [], "a second removal finishes the first"
    return seen


def test_a_removal_that_is_interrupted_anywhere_leaves_no_manifest_without_parts(tmp_path: Path) -> None:
    assert partial_caches_seen(tmp_path, lambda store, cache: list(delete(store, whole_cache(cache)))) == 0


def test_a_naive_removal_in_another_order_does(tmp_path: Path) -> None:
    def naive(store: FolderStore, cache: CacheEntry) -> None:
        for found in reversed(cache.objects):
            store.delete(found.key)

    assert partial_caches_seen(tmp_path, naive) > 0


def test_what_is_deleted_is_told_one_by_one(store: FolderStore) -> None:
    manifest = cache_in(store, TableTeacher())
    found = whole_cache(entry(store, manifest))
    gone: list[Unreachable] = list(delete(store, found))
    assert sorted(one.entry for one in gone) == sorted(one.entry for one in found)
    assert gone[0].entry.key == manifest.key("manifest.json")
    assert all(one.entry.key.endswith(".json") for one in gone[: 1 + len(manifest.parts)])


def test_a_file_that_somebody_else_put_there_stops_no_removal(store: FolderStore, folder: Path) -> None:
    manifest = cache_in(store, TableTeacher())
    foreign = folder / manifest.key("notes of mine~.txt")
    foreign.write_text("x")
    assert len(list(delete(store, whole_cache(entry(store, manifest))))) == 2 * len(manifest.parts) + 1
    assert read_caches(store) == [] and foreign.is_file()
