"""A sketch knows everybody in the data, and tells nothing to whoever lacks the key."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.subject_key import SubjectKey, subject_key_made
from components.errors import DataError, IntegrityError, SettingsError
from components.provenance.subjects import (
    Sketch,
    _seal_of,
    people_in,
    publish_sketch,
    read_sketch,
    read_sketches,
    sketch_key,
    sketch_of,
)
from components.storage.folder_store import FolderStore

OUTPUTS = {"artifacts/a/events.parquet": "1" * 32, "artifacts/a/dataset": "2" * 32 + ".dir"}


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SubjectKey:
    monkeypatch.delenv("RECSTILL_SUBJECT_KEY", raising=False)
    return subject_key_made(tmp_path / "keys")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "artifacts" / "a"
    (place / "dataset").mkdir(parents=True)
    pl.DataFrame({"user": ["ann", "bob", "ann"]}).write_parquet(place / "events.parquet")
    pl.DataFrame({"user": ["cy", None, "12.0"]}).write_parquet(place / "rejected.parquet")
    pl.DataFrame({"user": [0], "id": ["ann"]}).write_parquet(place / "dataset" / "users.parquet")
    return place


def sketched(folder: Path, key: SubjectKey) -> Sketch:
    return sketch_of(folder, OUTPUTS, key, scenario="a", dataset="d" * 64, attached="during the run")


def test_everybody_is_in_it_those_of_rejected_rows_too(folder: Path, key: SubjectKey) -> None:
    assert people_in(folder) == {"ann", "bob", "cy", "12.0", "12"}
    sketch = sketched(folder, key)
    assert all(sketch.holds(person, key) for person in ("ann", "bob", "cy", "12"))
    assert not any(sketch.holds(person, key) for person in ("dan", "", "an", "1"))


def test_it_is_found_again_by_the_md5s_of_the_lock(folder: Path, key: SubjectKey, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    assert read_sketch(store, OUTPUTS) is None
    assert publish_sketch(store, sketched(folder, key))
    assert not publish_sketch(store, sketched(folder, key))
    found = read_sketch(store, {path.replace("/a/", "/renamed/"): md5 for path, md5 in OUTPUTS.items()})
    assert found == sketched(folder, key)
    assert [one.id for one in read_sketches(store)] == [found.id]
    assert read_sketch(store, {**OUTPUTS, "artifacts/a/dataset": "3" * 32}) is None


def test_no_id_lies_in_the_store(folder: Path, key: SubjectKey, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    publish_sketch(store, sketched(folder, key))
    content = store.get(sketch_key(OUTPUTS))
    assert not any(f'"{person}"'.encode() in content for person in ("ann", "bob", "cy", "12"))
    assert json.loads(content)["count"] == 5


def test_another_key_is_an_error_and_no_answer(folder: Path, key: SubjectKey, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="was made with key"):
        sketched(folder, key).holds("ann", subject_key_made(tmp_path / "other"))


@pytest.mark.parametrize("field", ["marks", "count", "sha256", "format"])
def test_a_damaged_sketch_is_told(folder: Path, key: SubjectKey, tmp_path: Path, field: str) -> None:
    store = FolderStore(tmp_path / "store")
    publish_sketch(store, sketched(folder, key))
    path = tmp_path / "store" / sketch_key(OUTPUTS)
    document = json.loads(path.read_text())
    document[field] = {"marks": "AAAA", "count": 4, "sha256": "0" * 64, "format": 1}[field]
    path.write_text(json.dumps(document))
    with pytest.raises(IntegrityError, match="no sketch"):
        read_sketch(store, OUTPUTS)


def test_one_that_was_put_in_the_place_of_another_is_told(folder: Path, key: SubjectKey, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    publish_sketch(store, sketched(folder, key))
    other = {"artifacts/a/events.parquet": "9" * 32}
    (tmp_path / "store" / sketch_key(OUTPUTS)).rename(tmp_path / "store" / sketch_key(other))
    with pytest.raises(IntegrityError, match="of other data"):
        read_sketch(store, other)


def test_one_that_somebody_without_the_key_has_written_counts_for_nothing(
    folder: Path, key: SubjectKey, tmp_path: Path
) -> None:
    store = FolderStore(tmp_path / "store")
    sketch = sketched(folder, key)
    # Without bob, and right in all that needs no key.
    marks = b"".join(mark for mark in _each(sketch.marks) if mark.hex() != key.mark("bob"))
    for forged in (replace(sketch, marks=marks, count=sketch.count - 1), replace(sketch, dataset="e" * 64)):
        publish_sketch(store, forged)
        found = read_sketch(store, OUTPUTS)
        assert found is not None
        with pytest.raises(IntegrityError, match="may hide people"):
            found.holds("bob", key)
        store.delete(sketch_key(OUTPUTS))
    publish_sketch(store, sketch)
    found = read_sketch(store, OUTPUTS)
    assert found is not None and found.holds("bob", key)


def test_data_of_which_a_part_is_not_there_get_none(folder: Path, key: SubjectKey) -> None:
    (folder / "events.parquet").unlink()
    with pytest.raises(DataError, match=r"events\.parquet is not in"):
        sketched(folder, key)


def _each(marks: bytes) -> list[bytes]:
    return [marks[start : start + 12] for start in range(0, len(marks), 12)]


def test_nobody_at_all_is_an_error(tmp_path: Path, key: SubjectKey) -> None:
    with pytest.raises(DataError, match="nobody"):
        sketched(tmp_path, key)


@settings(max_examples=50, deadline=None)
@given(st.sets(st.text(max_size=8), min_size=1, max_size=60), st.text(max_size=8))
def test_it_holds_exactly_those_who_are_in_it(people: set[str], asked: str) -> None:
    key = SubjectKey("0" * 16, True, b"secret")
    marks = b"".join(sorted(bytes.fromhex(key.mark(person)) for person in people))
    sketch = Sketch("a", OUTPUTS, "", "afterwards", key.id, len(people), marks)
    sketch = replace(sketch, seal=_seal_of(sketch, key))
    assert all(sketch.holds(person, key) for person in people)
    assert sketch.holds(asked, key) == (asked in people)
