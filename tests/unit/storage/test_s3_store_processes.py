"""What a store on S3 takes along to another process. No request is made."""

from __future__ import annotations

import os
import pickle

import pytest

from components.storage.s3_store import S3Store


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> S3Store:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-access-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-secret-key")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:the-password@localhost:1")
    return S3Store("bucket", "some/prefix")


def test_a_store_takes_no_credential_along_to_another_process(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = pickle.dumps(store)
    assert not any(secret in sent for secret in (b"the-access-key", b"the-secret-key", b"the-password"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:2")
    there = pickle.loads(sent)
    assert there.address == store.address == "s3://bucket/some/prefix"
    assert there._client.meta.endpoint_url == "http://localhost:2"


def test_a_forked_process_has_connections_of_its_own(store: S3Store) -> None:
    here = id(store._client)
    assert here == id(store._client)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"other" if id(store._client) != here else b"same!")
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 5) == b"other"
    assert here == id(store._client)
