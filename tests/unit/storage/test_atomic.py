from __future__ import annotations

import errno
from pathlib import Path

import pytest

from components.errors import DataError, StorageError
from components.storage.atomic import new_file, new_folder, read_json, write_json


class StopError(Exception):
    pass


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a" / "file"
    with pytest.raises(StopError), new_file(path) as temporary:
        temporary.write_text("half")
        raise StopError
    assert list(path.parent.iterdir()) == []
    with new_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_folder_replaces_an_older_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for name in ("first", "second"):
        with new_folder(path) as temporary:
            (temporary / name).write_text(name)
    assert [entry.name for entry in path.iterdir()] == ["second"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_the_older_folder_stays_when_the_new_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder"
    with new_folder(path) as temporary:
        (temporary / "older").write_text("older")
    with pytest.raises(StopError), new_folder(path) as temporary:
        raise StopError
    assert (path / "older").exists()

    replace = Path.replace

    def fails_to_take_its_place(self: Path, target: Path) -> Path:
        if target == path and ".older" not in self.name:
            raise StopError
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails_to_take_its_place)
    with pytest.raises(StopError), new_folder(path) as temporary:
        (temporary / "newer").write_text("newer")
    assert [entry.name for entry in path.iterdir()] == ["older"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no space left"), new_file(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_json_is_the_same_bytes_for_the_same_record(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": [1.5]})
    write_json(tmp_path / "b.json", {"a": [1.5], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DataError, match="missing"):
        read_json(tmp_path / "c.json")
