"""Faults between client and S3 server: each read and write heals, or is one clear error; none is silent."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from botocore.parsers import ResponseParserError

from components.errors import IntegrityError, RecstillError, StorageError
from components.soft_labels.manifest import read_manifest
from components.soft_labels.reader import SoftLabelReader
from components.storage.contract import StoredObject
from components.storage.s3_store import S3Store
from tests.integration.conftest import S3Server
from tests.integration.fault_proxy import (
    Fault,
    FaultProxy,
    Message,
    Wire,
    cut,
    cut_request,
    drop,
    flip,
    flip_at,
    flip_request,
    hang,
    hang_within,
    unavailable,
)
from tests.integration.killed_writers import POINTS, LoggedTeacher, dataset_of, undisturbed, write

CONTENT = random.Random(1).randbytes(200_000)
# The largest number of requests that a read or write may be repeated, times the time one may take, and the waits.
BOUND_SECONDS = 20.0
ATTEMPTS = 16
FLIPS = 100


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


Behind = Callable[..., AbstractContextManager[tuple[S3Store, FaultProxy]]]
pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture(params=["http", "https"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def on_http(*faults: Fault) -> list[tuple[Fault, str]]:
    return [(fault, "http") for fault in faults]


def on_both(*faults: Fault) -> list[tuple[Fault, str]]:
    return [(fault, scheme) for fault in faults for scheme in ("http", "https")]


@pytest.fixture
def bucket(s3_environment: S3Server) -> str:
    return s3_environment.new_bucket()


@pytest.fixture
def near(bucket: str) -> S3Store:
    """The store without anything between."""
    return S3Store(bucket)


@pytest.fixture
def behind(s3_environment: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Behind:
    """The store behind a proxy."""
    server = s3_environment

    @contextmanager
    def store(
        fault: Fault, faults: int, scheme: str = "http", methods: tuple[str, ...] = ("GET", "PUT", "POST")
    ) -> Iterator[tuple[S3Store, FaultProxy]]:
        endpoint, shown = server.endpoint, {}
        if scheme == "https":
            monkeypatch.setenv("AWS_CA_BUNDLE", str(server.certificate))
            endpoint, shown = server.https_endpoint, {"certificate": server.certificate, "key": server.key}
        with FaultProxy(endpoint, fault, faults, methods=methods, **shown) as proxy:
            monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
            yield S3Store(bucket, read_timeout_seconds=0.25 if fault in (hang, hang_within) else 30.0), proxy

    return store


@pytest.mark.parametrize(("fault", "scheme"), [*on_both(flip, cut, drop), *on_http(unavailable, hang, hang_within)])
def test_a_read_that_is_disturbed_heals_or_is_one_clear_error(
    near: S3Store, behind: Behind, fault: Fault, scheme: str, tmp_path: Path
) -> None:
    near.put("key", CONTENT, digest(CONTENT))
    with behind(fault, 1, scheme, ("GET",)) as (far, proxy):
        assert far.get("key", digest(CONTENT)) == CONTENT
        assert proxy.faults == 0
        proxy.faults = 1
        far.get_to_file("key", tmp_path / "target", digest(CONTENT))
        assert (tmp_path / "target").read_bytes() == CONTENT
        assert proxy.faults == 0
        proxy.faults = 10_000
        started, before = time.monotonic(), len(proxy.requests)
        with pytest.raises(
            (StorageError, IntegrityError), match=r"object key|writing key|be reached|for key"
        ) as caught:
            far.get_to_file("key", tmp_path / "other", digest(CONTENT))
        assert isinstance(caught.value, IntegrityError) == (fault is flip)
        assert time.monotonic() - started < BOUND_SECONDS
        assert len(proxy.requests) - before <= ATTEMPTS
        assert list(tmp_path.iterdir()) == [tmp_path / "target"]


@pytest.mark.parametrize(("fault", "scheme"), [*on_both(flip_request, cut_request), *on_http(unavailable, drop, hang)])
def test_a_write_that_is_disturbed_heals_or_is_one_clear_error(
    near: S3Store, behind: Behind, fault: Fault, scheme: str, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    with behind(fault, 1, scheme, ("PUT",)) as (far, proxy):
        far.put("bytes", CONTENT, digest(CONTENT))
        assert proxy.faults == 0
        proxy.faults = 1
        far.put("file", tmp_path / "source", digest(CONTENT))
        proxy.faults = 1
        assert far.put_if_absent("mine", CONTENT, digest(CONTENT))
        assert proxy.faults == 0
        for key in ("bytes", "file", "mine"):
            assert near.get(key, digest(CONTENT)) == CONTENT
        proxy.faults = 10_000
        started = time.monotonic()
        with pytest.raises(StorageError, match=r"writing never|be reached|for never"):
            far.put("never", CONTENT, digest(CONTENT))
        try:
            written = far.put_if_absent("once", CONTENT, digest(CONTENT))
        except StorageError as error:
            assert str(error)
        else:
            # The HEAD that asks what became of it is answered.
            assert written and near.get("once", digest(CONTENT)) == CONTENT
        assert time.monotonic() - started < BOUND_SECONDS
    for entry in near.list(""):
        assert near.get(entry.key) == CONTENT


@pytest.mark.parametrize("fault", [flip, cut])
def test_a_large_object_is_checked_in_all_its_parts_both_ways(
    behind: Behind, fault: Fault, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.storage.s3_store._MULTIPART_FROM", 20 << 20)
    content = CONTENT * 120
    (tmp_path / "source").write_bytes(content)
    with behind({flip: flip_request, cut: cut_request}[fault], 2, scheme, ("PUT",)) as (far, proxy):
        far.put("large", tmp_path / "source", digest(content))
        assert proxy.faults == 0
        assert sum("partNumber" in request for request in proxy.requests) > 4
    with behind(fault, 1, scheme, ("GET",)) as (far, proxy):
        far.get_to_file("large", tmp_path / "target", digest(content))
        assert proxy.faults == 0
        assert (tmp_path / "target").read_bytes() == content
        proxy.faults = 10_000
        with pytest.raises((StorageError, IntegrityError), match="large"):
            far.get("large", digest(content))


def test_a_large_object_that_is_flipped_on_the_way_passes_boto3s_own_download(
    s3_environment: S3Server, bucket: str, behind: Behind, tmp_path: Path
) -> None:
    """The naive twin of the test above."""
    content = CONTENT * 60
    s3_environment.client().upload_fileobj(io.BytesIO(content), bucket, "large")
    with behind(flip, 1, "http", ("GET",)) as (far, proxy):
        far._client.download_file(bucket, "large", str(tmp_path / "target"))
        assert proxy.faults == 0
        wrong_file = (tmp_path / "target").read_bytes() != content
        proxy.faults = 1
        ranged = far._client.get_object(Bucket=bucket, Key="large", Range="bytes=0-99999")["Body"].read()
        wrong_range = ranged != content[:100_000]
    print(f"naive, flips that pass: download_file={wrong_file} ranged={wrong_range}")
    assert wrong_file and wrong_range


def test_a_cache_is_written_and_read_over_a_line_that_flips_a_third_of_all_that_passes(
    near: S3Store, behind: Behind, scheme: str, tmp_path: Path
) -> None:
    """Parts, records and the manifest, on their way there and back."""
    seeded, lock, flips = random.Random(4), threading.Lock(), []

    def fault(request: Message, wire: Wire) -> None:
        with lock:
            spoil, place, bit = seeded.random() < 1 / 3, seeded.random(), seeded.randrange(8)
        if spoil and request.body:
            wire.forward(request.flipped(place, bit).raw)
            wire.answer(wire.reply().raw)
        else:
            wire.forward(request.raw)
            reply = wire.reply()
            wire.answer(
                reply.flipped(place, bit).raw if spoil and reply.head.startswith(b"HTTP/1.1 200") else reply.raw
            )
        flips.append(spoil)

    teacher, points = LoggedTeacher(tmp_path / "asked"), torch.arange(POINTS)
    silent = told = 0
    with behind(fault, 1_000_000, scheme) as (far, _):
        for number in range(4):
            dataset = dataset_of(f"flips {scheme} {number}")
            key, whole = undisturbed(dataset)
            for _ in range(10):
                try:
                    manifest = write(far, teacher, dataset)
                    manifest = read_manifest(far.get(manifest.key("manifest.json")), "manifest")
                    labels = SoftLabelReader(far, manifest, tmp_path / f"cache-{number}").labels(points)
                    break
                except RecstillError:
                    told += 1
            else:
                raise AssertionError("ten attempts were not enough")
            right = SoftLabelReader(near, read_manifest(whole, key), tmp_path / "right").labels(points)
            silent += near.get(key) != whole or not torch.equal(labels.log_probs, right.log_probs)
    print(f"flips on the line, {scheme}: exchanges={len(flips)} flips={sum(flips)} silent={silent} told={told}")
    assert sum(flips) > 20
    assert silent == 0


def test_an_object_whose_digest_nobody_names_is_checked_against_the_one_it_carries(
    near: S3Store, behind: Behind, scheme: str
) -> None:
    near.put("manifest", CONTENT, digest(CONTENT))
    places = random.Random(2)

    def fault(request: Message, wire: Wire) -> None:
        flip_at(places.random(), places.randrange(8))(request, wire)

    with behind(fault, 0, scheme) as (far, proxy):
        for _ in range(20):
            proxy.faults = 1
            assert far.get("manifest") == CONTENT
            assert proxy.faults == 0


def test_no_flip_in_a_listing_is_silent(near: S3Store, s3_environment: S3Server, bucket: str, behind: Behind) -> None:
    """Over the same flips a plain listing is the naive twin."""
    for number in range(12):
        near.put(f"a/key-{number:02d}", b"x" * number, digest(b"x" * number))
    expected = [entry._replace(modified=int(entry.modified)) for entry in near.list("a/")]
    assert len(expected) == 12
    places, silent, naive_silent, loud = random.Random(3), 0, 0, 0

    def fault(request: Message, wire: Wire) -> None:
        flip_at(place, bit)(request, wire)

    with behind(fault, 0, "http", ("GET",)) as (far, proxy):
        for _ in range(FLIPS):
            place, bit = places.random(), places.randrange(8)
            proxy.faults = 1
            try:
                silent += [entry._replace(modified=int(entry.modified)) for entry in far.list("a/")] != expected
            except StorageError:
                loud += 1
            assert proxy.faults == 0
            proxy.faults = 1
            with contextlib.suppress(ResponseParserError, ValueError, KeyError):
                answer = far._client.list_objects_v2(Bucket=bucket, Prefix="a/")
                naive_silent += [
                    StoredObject(entry["Key"], entry["Size"], int(entry["LastModified"].timestamp()))
                    for entry in answer["Contents"]
                ] != expected
    print(f"flips in a listing: flips={FLIPS} silent={silent} loud={loud} naive_silent={naive_silent}")
    assert silent == 0
    assert naive_silent > 0
