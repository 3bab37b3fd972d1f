"""`recstill verify` where store and DVC's remote are a bucket: the same findings, the same repairs."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from components.storage.object_store import open_store
from flows.auditing.verifying import verify, verify_and_repair
from tests.integration.conftest import S3Server
from tests.unit.flows.auditing.damages import STORE
from tests.unit.flows.auditing.many_versions import VARIABLES, many_versions


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many_versions(tmp_path_factory.mktemp("registered"))


@pytest.fixture
def address(made: Path, s3_environment: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket with everything that the checkout's folder holds; the checkout is the current folder."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    found = f"s3://{s3_environment.new_bucket()}/team"
    store = open_store(found)
    for path in sorted((made / STORE).rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            key = path.relative_to(made / STORE).as_posix()
            store.put(key, content, hashlib.sha256(content).hexdigest())
    monkeypatch.setenv("RECSTILL_STORE", found)
    monkeypatch.chdir(made)
    return found


def spoil(s3_server: S3Server, address: str, key: str) -> None:
    """Other bytes under a key, of the same size, put there by somebody who knows nothing of digests."""
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    client = s3_server.client()
    content = bytearray(client.get_object(Bucket=bucket, Key=f"{prefix}/{key}")["Body"].read())
    content[len(content) // 2] ^= 1
    client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=bytes(content))


def test_damage_in_a_bucket_is_found_and_put_back(
    made: Path, address: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verify(made).findings == ()
    keys = [path.relative_to(made / STORE).as_posix() for path in sorted((made / STORE).rglob("*")) if path.is_file()]
    model = next(key for key in keys if key.endswith("model.onnx"))
    data = next(key for key in keys if key.startswith("dvc/files/md5/"))
    switch = next(key for key in keys if "/prod/" in key)
    gone = next(key for key in keys if key.startswith("soft-labels/") and key.endswith(".safetensors"))
    for key in (model, data, switch):
        spoil(s3_server, address, key)
    open_store(address).delete(gone)
    found = verify(made)
    md5 = data.removeprefix("dvc/files/md5/").replace("/", "")
    assert {one.object for one in found.damaged} >= {model, md5, switch, gone}
    assert all(one.object in {model, md5, switch, gone} or "/prod/" in one.object for one in found.damaged)
    second = tmp_path / "second"
    shutil.copytree(made / STORE, second)
    assert verify_and_repair(made, addresses=[str(second)])[0].findings == ()
    assert verify(made).findings == ()
