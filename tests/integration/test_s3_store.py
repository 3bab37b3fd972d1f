"""The store on a real S3 server, with the standard variables and nothing replaced."""

from __future__ import annotations

import hashlib
import socket
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from components.errors import IntegrityError, StorageError
from components.storage.object_store import MissingObjectError, ObjectStore, StoredObject, open_store
from components.storage.s3_store import S3Store
from tests.integration.fault_proxy import Fault, FaultProxy, cut, drop, flip

pytestmark = pytest.mark.usefixtures("impatient")


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def store(s3_environment) -> S3Store:
    found = open_store(f"s3://{s3_environment.new_bucket()}/some/prefix")
    assert isinstance(found, S3Store)
    return found


def requests_of(store: S3Store) -> list[str]:
    """Fills with the method of every request that leaves for the server."""
    sent: list[str] = []
    store._client.meta.events.register("before-send.s3.*", lambda request, **_: sent.append(request.method))
    return sent


def everything(store: ObjectStore, folder: Path) -> list[Callable[[], object]]:
    return [
        lambda: store.put("key", b"content", digest(b"content")),
        lambda: store.put_if_absent("key", b"content", digest(b"content")),
        lambda: store.get("key", digest(b"content")),
        lambda: store.get_to_file("key", folder / "target", digest(b"content")),
        lambda: store.size("key"),
        lambda: list(store.list("")),
    ]


def test_what_is_put_is_got_from_bytes_and_from_a_file(store: S3Store, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"from a file")
    store.put("a/bytes", b"from bytes", digest(b"from bytes"))
    store.put("a/file", tmp_path / "source", digest(b"from a file"))
    assert store.get("a/bytes", digest(b"from bytes")) == b"from bytes"
    store.get_to_file("a/file", tmp_path / "target", digest(b"from a file"))
    assert (tmp_path / "target").read_bytes() == b"from a file"
    assert store.size("a/file") == len(b"from a file")
    assert [entry[:2] for entry in store.list("a/")] == [("a/bytes", 10), ("a/file", 11)]
    assert all(abs(entry.modified - time.time()) < 60 for entry in store.list(""))
    store.delete("a/bytes")
    store.delete("a/bytes")
    assert store.size("a/bytes") is None
    assert store.local_file("a/file") is None


def test_an_upload_that_was_never_completed_is_a_leftover_and_can_be_discarded(store: S3Store, s3_environment) -> None:
    bucket = store.address.removeprefix("s3://").partition("/")[0]
    s3_environment.client().create_multipart_upload(Bucket=bucket, Key="some/prefix/b/large")
    store.put("b/other", b"content", digest(b"content"))
    (leftover,) = store.leftovers("b/")
    assert leftover.key.startswith("b/large?uploadId=") and abs(leftover.modified - time.time()) < 60
    store.discard(leftover)
    store.discard(leftover)
    assert list(store.leftovers("")) == []
    with pytest.raises(StorageError, match="not a leftover"):
        store.discard(StoredObject("b/other", 1, 0.0))
    assert store.get("b/other") == b"content"


def test_a_prefix_keeps_two_stores_of_one_bucket_apart(s3_environment) -> None:
    bucket = s3_environment.new_bucket()
    one, other = open_store(f"s3://{bucket}/one"), open_store(f"s3://{bucket}/other")
    one.put("key", b"1", digest(b"1"))
    assert list(other.list("")) == []
    assert other.size("key") is None
    assert [entry["Key"] for entry in s3_environment.client().list_objects_v2(Bucket=bucket)["Contents"]] == ["one/key"]


def test_a_large_object_goes_in_parts_and_comes_back_whole(store: S3Store, tmp_path: Path) -> None:
    content = bytes(range(256)) * (66 << 12)
    (tmp_path / "source").write_bytes(content)
    sent = requests_of(store)
    store.put("large", tmp_path / "source", digest(content))
    assert len(sent) > 3
    store.get_to_file("large", tmp_path / "target", digest(content))
    assert (tmp_path / "target").read_bytes() == content


def test_of_eight_conditional_puts_at_once_exactly_one_wins(store: S3Store) -> None:
    for race in range(5):
        contents = [f"writer {number} of race {race}".encode() for number in range(8)]
        with ThreadPoolExecutor(8) as pool:
            key = f"race/{race}"
            won = list(pool.map(lambda content, key=key: store.put_if_absent(key, content, digest(content)), contents))
        assert sum(won) == 1
        assert store.get(key) == contents[won.index(True)]


def through(proxy: FaultProxy, store: S3Store, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
    return S3Store(store._bucket, "some/prefix")


def test_a_refusal_after_a_lost_reply_is_known_as_ones_own_write_by_its_digest(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has written, the reply is lost, boto3 sends the request again and meets its own object: 412."""
    store.put("taken", b"of somebody else", digest(b"of somebody else"))
    with FaultProxy(store._endpoint, drop, faults=1) as proxy:
        far = through(proxy, store, monkeypatch)
        assert far.put_if_absent("free", b"mine", digest(b"mine"))
        assert proxy.faults == 0
        proxy.faults = 1
        assert not far.put_if_absent("taken", b"mine", digest(b"mine"))
        assert proxy.faults == 0
    assert store.get("free") == b"mine"
    assert store.get("taken") == b"of somebody else"


@pytest.mark.parametrize("fault", [cut, flip])
def test_a_body_that_is_spoiled_on_the_way_is_read_again(
    store: S3Store, fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(range(256)) * 4096
    store.put("key", content, digest(content))
    with FaultProxy(store._endpoint, fault, faults=2, methods=("GET",)) as proxy:
        far = through(proxy, store, monkeypatch)
        assert far.get("key", digest(content)) == content
        assert proxy.faults == 0
        proxy.faults = 1
        far.get_to_file("key", tmp_path / "target", digest(content))
        assert (tmp_path / "target").read_bytes() == content
        assert proxy.faults == 0
        proxy.faults = 1000
        with pytest.raises((StorageError, IntegrityError)):
            far.get("key", digest(content))


def test_an_object_that_was_there_first_is_not_ones_own_even_if_it_is_equal(store: S3Store) -> None:
    assert store.put_if_absent("key", b"content", digest(b"content"))
    assert not store.put_if_absent("key", b"content", digest(b"content"))


def test_an_object_that_was_changed_behind_our_back_is_never_handed_over(
    store: S3Store, s3_environment, tmp_path: Path
) -> None:
    store.put("key", b"0123456789", digest(b"0123456789"))
    client = s3_environment.client()
    for changed in (b"0123456788", b"012345678", b""):
        client.put_object(Bucket=store._bucket, Key="some/prefix/key", Body=changed)
        with pytest.raises(IntegrityError, match="key"):
            store.get("key", digest(b"0123456789"))
        with pytest.raises(IntegrityError, match="key"):
            store.get_to_file("key", tmp_path / "target", digest(b"0123456789"))
        assert not (tmp_path / "target").exists()


def test_content_that_is_not_what_was_announced_is_not_sent(store: S3Store) -> None:
    sent = requests_of(store)
    for write in (store.put, store.put_if_absent):
        with pytest.raises(IntegrityError, match="key"):
            write("key", b"content", digest(b"other"))
    assert sent == []


def test_a_missing_object_is_named(store: S3Store, tmp_path: Path) -> None:
    for read in (lambda: store.get("a/b"), lambda: store.get_to_file("a/b", tmp_path / "x", digest(b""))):
        with pytest.raises(MissingObjectError, match="a/b"):
            read()


@pytest.mark.parametrize("key", ["../x", "/x", "a/../x"])
def test_a_key_that_could_leave_the_prefix_is_refused(store: S3Store, key: str) -> None:
    with pytest.raises(StorageError, match="not a valid object key"):
        store.put(key, b"", digest(b""))


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_SECRET_ACCESS_KEY": "wr0ng-but-still-secret"},
        {"AWS_ACCESS_KEY_ID": "nobody-knows-me", "AWS_SECRET_ACCESS_KEY": "wr0ng-but-still-secret"},
    ],
    ids=["secret", "user"],
)
def test_wrong_credentials_are_one_request_and_one_error_without_them(
    s3_environment, variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3_environment.new_bucket()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{bucket}")
    assert isinstance(store, S3Store)
    for use in everything(store, tmp_path):
        sent = requests_of(store)
        with pytest.raises(StorageError, match="refuses the credentials") as caught:
            use()
        assert len(sent) == 1
        shown = "".join(traceback.format_exception(caught.value))
        assert "wr0ng" not in shown
        assert "nobody-knows-me" not in shown
        assert "Signature=" not in shown


def test_no_credentials_at_all_are_one_clear_error(
    s3_environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StorageError, match="no usable credentials"):
        open_store("s3://bucket").get("key")


def test_a_missing_bucket_is_told_from_a_missing_object(
    s3_environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # SeaweedFS makes a bucket for an administrator who writes into none.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_environment.guest)
    store = open_store("s3://no-such-bucket-here")
    for use in everything(store, tmp_path)[2:]:
        with pytest.raises(StorageError, match="the bucket of s3://no-such-bucket-here does not exist"):
            use()


def test_a_server_that_does_not_answer_is_named_without_a_password(
    s3_environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://someone:passw0rd@127.0.0.1:{port}")
        store = open_store("s3://bucket")
        started = time.monotonic()
        with pytest.raises(StorageError, match=rf"cannot be reached at http://127\.0\.0\.1:{port}") as caught:
            store.put_if_absent("key", b"", digest(b""))
        assert time.monotonic() - started < 30
        assert "passw0rd" not in "".join(traceback.format_exception(caught.value))


def test_an_endpoint_that_is_no_address_is_one_clear_error(s3_environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:passw0rd@ not an address")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL") as caught:
        open_store("s3://bucket").get("key")
    assert "passw0rd" not in str(caught.value)
