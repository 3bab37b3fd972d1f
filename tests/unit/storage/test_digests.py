from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from components.storage.digests import array_digest, file_digest, folder_digest, record_digest


def test_a_file_is_known_by_its_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_folder_is_known_by_names_and_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = folder_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = folder_digest(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, renamed, folder_digest(tmp_path)}) == 3


def test_a_record_is_known_by_what_it_says_whatever_the_order() -> None:
    assert record_digest({"a": 1, "b": 2}) == record_digest({"b": 2, "a": 1})
    assert record_digest({"a": 1}) != record_digest({"a": 2})


def test_an_array_is_known_by_type_shape_and_values() -> None:
    array = np.arange(6, dtype=np.int32)
    same = np.arange(12, dtype=np.int32)[::2] // 2
    assert array_digest(array) == array_digest(same) == array_digest(array.astype(">i4"))
    others = {array_digest(other) for other in (array.astype(np.int64), array.reshape(2, 3), array + 1)}
    assert len(others) == 3
    assert array_digest(array) not in others
