from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import StorageError
from components.storage.folder_store import FolderStore
from components.storage.object_store import open_store


def test_without_an_address_the_store_is_a_folder_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECSTILL_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert open_store().address == f"file://{tmp_path}/.recstill/store"
    monkeypatch.setenv("RECSTILL_STORE", f"file://{tmp_path}/a folder")
    store = open_store()
    assert isinstance(store, FolderStore)
    assert store.local_file("key") == tmp_path / "a folder" / "key"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("gopher://x", "unknown kind of store 'gopher'"),
        ("/tmp/store", "no scheme"),
        ("file://relative", "not absolute"),
        ("s3://", "no bucket"),
        ("s3://bucket/../other", "not a valid object key"),
    ],
)
def test_an_address_of_no_known_form_is_refused_by_name(address: str, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        open_store(address)


@pytest.mark.parametrize(
    "address",
    [
        "s3://user:very-secret@bucket",
        "s3://user:not/very-secret@bucket/prefix",
        "user:very-secret@bucket",
        "s3:/user:very-secret@bucket",
        "https://user:very-secret@bucket",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(StorageError, match="holds credentials") as caught:
        open_store(address)
    assert "very-secret" not in str(caught.value)


def test_boto3_is_only_imported_for_an_s3_address() -> None:
    program = (
        "import sys; from components.storage.object_store import open_store; "
        "open_store('file:///x'); print('boto3' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
