"""People are named by a key that no name gives away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from components.data.subject_key import LOCAL_KEY, SUBJECT_VARIABLE, subject_key, subject_key_made
from components.errors import SettingsError

SECRET = "0f" * 32


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SUBJECT_VARIABLE, raising=False)


def test_a_local_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    assert subject_key(folder) is None
    first = subject_key_made(folder)
    assert first.local
    assert (folder / LOCAL_KEY).stat().st_mode & 0o777 == 0o600
    assert subject_key_made(folder) == first == subject_key(folder)
    assert subject_key_made(tmp_path / "others").id != first.id


def test_the_environment_comes_first_as_text_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = subject_key_made(tmp_path)
    monkeypatch.setenv(SUBJECT_VARIABLE, SECRET)
    given = subject_key(tmp_path)
    assert given is not None
    assert (given.local, given.id == local.id) == (False, False)
    (tmp_path / "a.key").write_text(f"{SECRET}\n")
    monkeypatch.setenv(SUBJECT_VARIABLE, str(tmp_path / "a.key"))
    assert subject_key(tmp_path) == given


def test_a_mark_is_the_hmac_that_openssl_makes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(SUBJECT_VARIABLE, SECRET)
    key = subject_key(tmp_path)
    assert key is not None
    # printf 'recstill subject\0u17' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0f0f...
    assert key.mark("u17") == "37148aac20e5236209a7bd92"
    assert key.mark("u17") != key.mark("u18")


def test_no_secret_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = subject_key_made(tmp_path)
    secret = (tmp_path / LOCAL_KEY).read_text().strip()
    assert secret not in repr(key)
    assert secret[:16] != key.id
    # A key with a digit too many is taken for a path: it is not repeated in the error.
    monkeypatch.setenv(SUBJECT_VARIABLE, secret + "0")
    with pytest.raises(SettingsError) as error:
        subject_key(tmp_path)
    assert secret not in str(error.value)


@pytest.mark.parametrize("text", ["", "00" * 31, "zz" * 32, "é"])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCAL_KEY).write_bytes(text.encode() or os.linesep.encode())
    with pytest.raises(SettingsError, match="holds no key of 64 hexadecimal digits"):
        subject_key(tmp_path)
