from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.errors import IntegrityError, StorageError
from components.storage.folder_store import FolderStore
from components.storage.object_store import MissingObjectError, StoredObject


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def test_what_is_put_is_got_from_bytes_and_from_a_file(store: FolderStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"from a file")
    store.put("a/bytes", b"from bytes", digest(b"from bytes"))
    store.put("a/file", source, digest(b"from a file"))
    assert store.get("a/bytes", digest(b"from bytes")) == b"from bytes"
    store.get_to_file("a/file", tmp_path / "target", digest(b"from a file"))
    assert (tmp_path / "target").read_bytes() == b"from a file"
    assert store.size("a/file") == len(b"from a file")
    assert store.size("a/other") is None


def test_a_put_replaces_and_a_conditional_put_does_not(store: FolderStore) -> None:
    assert store.put_if_absent("key", b"first", digest(b"first"))
    assert not store.put_if_absent("key", b"second", digest(b"second"))
    assert store.get("key") == b"first"
    store.put("key", b"third", digest(b"third"))
    assert store.get("key") == b"third"


def test_of_eight_conditional_puts_at_once_exactly_one_wins(store: FolderStore) -> None:
    for race in range(20):
        contents = [f"writer {number} of race {race}".encode() for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            key = f"race/{race}"
            won = list(pool.map(lambda content, key=key: store.put_if_absent(key, content, digest(content)), contents))
        assert sum(won) == 1
        assert store.get(key) == contents[won.index(True)]


def test_content_that_is_not_what_was_announced_is_not_written(store: FolderStore, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="key"):
        store.put("key", b"content", digest(b"other"))
    with pytest.raises(IntegrityError, match="key"):
        store.put_if_absent("key", b"content", digest(b"other"))
    assert list((tmp_path / "store").iterdir()) == []


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b[:-1], lambda b: b"", lambda b: b + b"x"]
)
def test_a_damaged_object_is_never_handed_over(store: FolderStore, tmp_path: Path, damage) -> None:
    content = b"0123456789"
    store.put("a/b", content, digest(content))
    (tmp_path / "store" / "a" / "b").write_bytes(damage(content))
    with pytest.raises(IntegrityError, match="a/b"):
        store.get("a/b", digest(content))
    with pytest.raises(IntegrityError, match="a/b"):
        store.get_to_file("a/b", tmp_path / "target", digest(content))
    assert not (tmp_path / "target").exists()


def test_a_missing_object_is_named(store: FolderStore, tmp_path: Path) -> None:
    with pytest.raises(MissingObjectError, match="a/b"):
        store.get("a/b")
    with pytest.raises(MissingObjectError, match="a/b"):
        store.get_to_file("a/b", tmp_path / "target", digest(b""))
    store.delete("a/b")


def test_a_listing_is_sorted_and_shows_no_temporary_file(store: FolderStore, tmp_path: Path) -> None:
    assert list(store.list("")) == []
    for key in ("b/2", "a/1", "b/1"):
        store.put(key, key.encode(), digest(key.encode()))
    (tmp_path / "store" / "b" / ".3.half-written").write_bytes(b"x")
    assert [entry[:2] for entry in store.list("b/")] == [("b/1", 3), ("b/2", 3)]
    assert all(abs(entry.modified - time.time()) < 60 for entry in store.list(""))
    store.delete("b/1")
    assert [entry.key for entry in store.list("")] == ["a/1", "b/2"]


def test_a_temporary_file_of_a_killed_writer_is_a_leftover_and_can_be_discarded(
    store: FolderStore, tmp_path: Path
) -> None:
    store.put("b/1", b"1", digest(b"1"))
    (tmp_path / "store" / "b" / ".3.half-written").write_bytes(b"xy")
    (leftover,) = store.leftovers("b/")
    assert leftover[:2] == ("b/.3.half-written", 2)
    assert list(store.leftovers("a/")) == []
    store.discard(leftover)
    store.discard(leftover)
    assert list(store.leftovers("")) == [] and store.get("b/1") == b"1"


@pytest.mark.parametrize("key", ["b/1", "../.outside", "/tmp/.outside", "b/..", "b/../.x", ".", "b/."])
def test_only_a_leftover_can_be_discarded(store: FolderStore, tmp_path: Path, key: str) -> None:
    store.put("b/1", b"1", digest(b"1"))
    (tmp_path / ".outside").write_text("of somebody else")
    with pytest.raises(StorageError):
        store.discard(StoredObject(key, 1, 0.0))
    assert store.get("b/1") == b"1" and (tmp_path / ".outside").exists()


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "./a", ".hidden", "a b", "a\n", "ä", "a" * 901]
)
def test_a_key_that_could_leave_the_store_is_refused(store: FolderStore, key: str) -> None:
    for use in (
        lambda: store.get(key),
        lambda: store.put(key, b"", digest(b"")),
        lambda: store.delete(key),
        lambda: store.size(key),
    ):
        with pytest.raises(StorageError, match="not a valid object key"):
            use()


def test_a_store_where_a_file_is_in_the_way_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StorageError, match="cannot be written"):
        FolderStore(tmp_path / "store").put("a/b", b"", digest(b""))


def test_a_listing_walks_no_folder_that_its_prefix_cannot_be_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path)
    for key in ("a/b/1", "a/bc/2", "d/3"):
        store.put(key, b"x", digest(b"x"))
    walked: list[str] = []
    walk = os.walk

    def watched(top: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for one in walk(top):
            walked.append(one[0])
            yield one

    monkeypatch.setattr("components.storage.folder_store.os.walk", watched)
    assert [entry.key for entry in store.list("a/b")] == ["a/b/1", "a/bc/2"]
    assert str(tmp_path / "d") not in walked
    for prefix in ("nothing/", "/etc/", "../", "a/../", "//"):
        assert list(store.list(prefix)) == []
