"""The lock that is written record by record has the bytes that DVC would have written."""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import modify_yaml

from flows.lock_text import modifying_records, records_of

ODD: list[Any] = [
    *("yes", "on", "~", "null", "1e-3", "012", "12:30:45", "2020-01-01", "é ü", "日本", "a: b", "#x", "- x", " lead"),
    *("trail ", "multi\nline", "x" * 200, "word " * 40, "", "'q'", '"d"', "true", ".5", "=", "<<", "&a", "a #b", "😀"),
    *(1e-5, 5e-4, 0.1, 1e20, float("inf"), True, None, 0, -1, 10**20, [], {}, [[1, 2], [3]], [{"a": 1}, {"b": [1]}]),
]


def record(odd: Any = 1) -> OrderedDict[str, Any]:
    """As DVC makes it: ordered mappings in lists."""
    deps = [OrderedDict(path=f"src/{name}.py", hash="md5", md5=name * 32, size=7) for name in "ab"]
    return OrderedDict(cmd="python -m x", deps=deps, params={"params.yaml": OrderedDict([("a.b", odd), ("c", 1)])})


def changed(path: Path, modify: Callable[..., Any], *changes: Callable[[Any], None]) -> bytes:
    for change in changes:
        with modify(path) as data:
            change(data)
    return path.read_bytes()


@contextmanager
def never(path: Path, fs: Any = None) -> Any:
    raise AssertionError("the whole file was written")
    yield


def filled(path: Path) -> Path:
    with modify_yaml(path) as data:
        data.update({"schema": "2.0", "stages": {name: record() for name in ("a@x", "b@x", "c@x")}})
    return path


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_a_record_changed_and_one_added_are_written_as_dvc_writes_them(odd: Any, tmp_path: Path) -> None:
    ours, theirs = filled(tmp_path / "dvc.lock"), filled(tmp_path / "other.lock")

    def change(data: Any) -> None:
        data["stages"].update({"b@x": record(deepcopy(odd)), "d@x": record(deepcopy(odd))})

    found = changed(ours, modifying_records(never), change)

    assert found == changed(theirs, modify_yaml, change)
    assert found != filled(tmp_path / "third.lock").read_bytes()


def test_an_object_that_stands_in_two_records_is_left_to_dvc(tmp_path: Path) -> None:
    ours, theirs, twice = filled(tmp_path / "dvc.lock"), filled(tmp_path / "other.lock"), [1, 2]

    def change(data: Any) -> None:
        data["stages"].update({"d@x": record([twice, twice]), "b@x": record(twice)})

    found = changed(ours, modifying_records(modify_yaml), change)

    assert found == changed(theirs, modify_yaml, change) and b"&id001" in found
    with pytest.raises(AssertionError, match="whole"):
        changed(ours, modifying_records(never), lambda data: data["stages"].update({"a@x": record()}))


def test_a_record_that_is_taken_out_goes_and_the_others_keep_their_bytes(tmp_path: Path) -> None:
    path = filled(tmp_path / "dvc.lock")
    before = records_of(path)

    changed(path, modifying_records(never), lambda data: data["stages"].pop("b@x"))

    assert before is not None and records_of(path) == {name: before[name] for name in ("a@x", "c@x")}


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "schema: '2.0'\nstages:\n  a@x: {cmd: x}\n",
        "# a comment\nschema: '2.0'\nstages:\n  a@x:\n    cmd: x\n",
        "schema: '2.0'\ndatasets: []\nstages:\n  a@x:\n    cmd: x\n",
        "schema: '2.0'\nstages:\n  a@x:\n    cmd: x\n<<<<<<< ours\n",
    ],
)
def test_a_file_that_looks_otherwise_is_left_to_dvc(text: str | None, tmp_path: Path) -> None:
    path, asked = tmp_path / "dvc.lock", []
    if text is not None:
        path.write_text(text, encoding="utf-8")

    @contextmanager
    def whole(path: Path, fs: Any = None) -> Any:
        asked.append(path)
        yield {"stages": {}}

    with modifying_records(whole)(path) as data:
        assert data == {"stages": {}}

    assert asked == [path] and (text is None or path.read_text(encoding="utf-8") == text)


def test_other_files_and_other_keys_are_left_to_dvc(tmp_path: Path) -> None:
    lock, other = filled(tmp_path / "dvc.lock"), filled(tmp_path / "dvc.yaml")

    with pytest.raises(AssertionError, match="whole"), modifying_records(never)(other):
        pass
    changed(lock, modifying_records(modify_yaml), lambda data: data.update(datasets=[{"name": "n"}]))

    assert lock.read_bytes().endswith(b"datasets:\n- name: n\n")


def test_a_write_that_is_cut_off_leaves_the_lock_as_it_was(tmp_path: Path) -> None:
    path = filled(tmp_path / "dvc.lock")
    before = path.read_bytes()

    with pytest.raises(KeyboardInterrupt), modifying_records(never)(path) as data:
        data["stages"]["b@x"] = record("new")
        raise KeyboardInterrupt

    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]
