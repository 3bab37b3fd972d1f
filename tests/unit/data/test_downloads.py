"""A file is fetched once, checked at every use, and a failure says what to do."""

import hashlib
import sys
from pathlib import Path

import pytest

from components.data.downloads import downloads_folder, fetch, fetch_wheel, kept_file
from components.errors import DataError, IntegrityError, StorageError

CONTENT = bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def content(server) -> None:
    server.content = CONTENT


def test_a_file_is_fetched_once(server, downloads: Path) -> None:
    for _ in range(2):
        assert fetch(server.address, "a.zip", server.sha256).read_bytes() == CONTENT
    assert server.requests == 1
    assert [path.name for path in downloads.iterdir()] == ["a.zip"]


@pytest.mark.parametrize("failure", ["flip", "cut", 503])
def test_a_failed_attempt_is_repeated_after_a_wait(server, downloads: Path, waits: list[float], failure) -> None:
    server.plan = [failure, failure, "whole"]
    assert fetch(server.address, "a.zip", server.sha256).read_bytes() == CONTENT
    assert waits == [1, 2]


def test_each_attempt_is_announced(server, downloads: Path, waits: list[float], capsys) -> None:
    server.plan = [503, "whole"]
    fetch(server.address, "a.zip", server.sha256)
    shown = capsys.readouterr().out
    assert f"fetching {server.address}\n" in shown
    assert "(attempt 2 of 4)" in shown


def test_wrong_bytes_are_refused_with_both_digests_and_nothing_is_left(
    server, downloads: Path, waits: list[float]
) -> None:
    server.plan = ["flip"]
    with pytest.raises(IntegrityError) as caught:
        fetch(server.address, "a.zip", server.sha256)
    flipped = bytearray(CONTENT)
    flipped[len(CONTENT) // 2] ^= 1
    message = str(caught.value)
    assert f"received 1,024,000 bytes with SHA-256 {hashlib.sha256(flipped).hexdigest()}" in message
    assert f"expected SHA-256 {server.sha256}" in message
    assert f"by hand and put it here: {downloads / 'a.zip'}" in message
    assert server.requests == 4
    assert list(downloads.iterdir()) == []


@pytest.mark.parametrize(("failure", "word"), [(404, "404"), (503, "503"), ("cut", "IncompleteRead")])
def test_an_address_that_fails_is_refused_with_the_reason_and_the_way_out(
    server, downloads: Path, waits: list[float], failure, word: str
) -> None:
    server.plan = [failure]
    with pytest.raises(DataError) as caught:
        fetch(server.address, "a.zip", server.sha256)
    assert server.address in caught.value.message and word in caught.value.message
    assert str(downloads / "a.zip") in caught.value.remedy


def test_no_network_is_refused_with_the_reason(downloads: Path, waits: list[float]) -> None:
    with pytest.raises(DataError, match=r"127\.0\.0\.1:1/a\.zip cannot be fetched.*refused"):
        fetch("http://127.0.0.1:1/a.zip", "a.zip", "0" * 64, retries=1)
    assert waits == [1]


@pytest.mark.parametrize("damage", ["flip", "cut"])
def test_a_kept_file_that_was_damaged_is_not_used_and_fetched_again(
    server, downloads: Path, damage: str, capsys
) -> None:
    path = fetch(server.address, "a.zip", server.sha256)
    path.write_bytes(CONTENT[:-1] + b"x" if damage == "flip" else CONTENT[:1000])
    assert kept_file("a.zip", server.sha256) is None
    assert "damaged or cut short" in capsys.readouterr().out
    assert fetch(server.address, "a.zip", server.sha256).read_bytes() == CONTENT
    assert server.requests == 2


def test_a_file_placed_by_hand_is_used(server, downloads: Path) -> None:
    downloads.mkdir()
    (downloads / "a.zip").write_bytes(CONTENT)
    assert kept_file("a.zip", server.sha256) == downloads / "a.zip"
    assert fetch(server.address, "a.zip", server.sha256) == downloads / "a.zip"
    assert server.requests == 0


def test_a_folder_that_cannot_be_made_is_named(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RECSTILL_DOWNLOADS", str(tmp_path / "file" / "downloads"))
    with pytest.raises(StorageError, match="file/downloads, cannot be made: Not a directory"):
        fetch(server.address, "a.zip", server.sha256)


def test_the_users_cache_is_the_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECSTILL_DOWNLOADS", raising=False)
    assert downloads_folder().name == "recstill"


@pytest.fixture
def stand_in_for_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that pip reads from a folder, with one wheel of a package that nothing installs."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return index


def wheel(index: Path) -> tuple[str, str]:
    from tests.unit.data.conftest import zipped

    info = "tiny_data-1.0.dist-info"
    path = index / "tiny_data-1.0-py3-none-any.whl"
    path.write_bytes(
        zipped(
            {
                "tiny_data/rows.txt": b"1\n",
                f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n",
                f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                f"{info}/RECORD": b"",
            }
        )
    )
    return path.name, hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wheel_is_fetched_through_pip_and_kept(stand_in_for_pip: Path, downloads: Path) -> None:
    name, sha256 = wheel(stand_in_for_pip)
    assert fetch_wheel("tiny-data", "1.0", name, sha256) == kept_file(name, sha256) == downloads / name
    assert [path.name for path in downloads.iterdir()] == [name]
    assert "tiny_data" not in sys.modules


def test_a_wheel_with_other_bytes_is_refused_and_not_kept(stand_in_for_pip: Path, downloads: Path) -> None:
    name, sha256 = wheel(stand_in_for_pip)
    with pytest.raises(IntegrityError, match=sha256):
        fetch_wheel("tiny-data", "1.0", name, "0" * 64)
    assert list(downloads.iterdir()) == []


def test_a_wheel_that_pip_cannot_find_is_refused_in_pips_words(stand_in_for_pip: Path, downloads: Path) -> None:
    with pytest.raises(DataError, match=r"tiny-data==1.0: .*No matching distribution") as caught:
        fetch_wheel("tiny-data", "1.0", "tiny_data-1.0-py3-none-any.whl", "0" * 64)
    assert str(downloads / "tiny_data-1.0-py3-none-any.whl") in caught.value.remedy
