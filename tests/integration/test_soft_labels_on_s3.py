"""The soft-label cache, written to and read from a real S3 server."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from components.errors import IntegrityError, StorageError
from components.soft_labels.codecs.building import codec_of
from components.soft_labels.manifest import read_manifest
from components.soft_labels.reader import SoftLabelReader
from components.storage.object_store import ObjectStore, open_store
from tests.unit.soft_labels.table_teacher import OUTCOMES, POINTS, TableTeacher, cache_in


@pytest.fixture
def store(s3_environment) -> ObjectStore:
    return open_store(f"s3://{s3_environment.new_bucket()}")


def test_labels_written_over_s3_are_read_back(store: ObjectStore, tmp_path: Path) -> None:
    teacher = TableTeacher()
    manifest = cache_in(store, teacher)
    assert read_manifest(store.get(manifest.key("manifest.json")), "store") == manifest
    reader = SoftLabelReader(store, manifest, tmp_path / "cache")
    points = torch.randperm(POINTS, generator=torch.Generator().manual_seed(0))
    form = codec_of(manifest.codec, OUTCOMES)
    expected = form.decode(form.encode(teacher.table[points]))
    found = reader.labels(points)
    for one, other in zip(found[:3], expected[:3], strict=True):
        assert torch.equal(one, other)
    # A second reader on this machine fetches nothing.
    for entry in list(store.list("")):
        store.delete(entry.key)
    assert torch.equal(SoftLabelReader(store, manifest, tmp_path / "cache").labels(points).ids, found.ids)
    with pytest.raises(StorageError, match="--from soft_labels --force"):
        SoftLabelReader(store, manifest, tmp_path / "other").labels(points)


def test_a_finished_cache_is_not_scored_again_and_a_damaged_one_is_healed(
    store: ObjectStore, s3_environment, tmp_path: Path
) -> None:
    manifest = cache_in(store, TableTeacher())
    again = TableTeacher()
    assert cache_in(store, again) == manifest
    assert again.scored == []
    key = manifest.key(manifest.parts[1].name)
    content = bytearray(store.get(key))
    content[-3] ^= 1
    s3_environment.client().put_object(Bucket=store.address.removeprefix("s3://"), Key=key, Body=bytes(content))
    with pytest.raises(IntegrityError, match="part-00001"):
        SoftLabelReader(store, manifest, tmp_path / "cache").labels(torch.arange(POINTS))
    assert cache_in(store, again) == manifest
    assert again.scored == list(range(100, 200))
    SoftLabelReader(store, manifest, tmp_path / "cache").labels(torch.arange(POINTS))


@pytest.mark.parametrize("name", ["part-00001.json", "manifest.json"])
def test_a_record_that_is_not_what_it_says_of_itself_is_written_anew(
    store: ObjectStore, s3_environment, name: str
) -> None:
    """Its bytes have changed in the store; the digest that it carries has not."""
    manifest = cache_in(store, TableTeacher())
    key = manifest.key(name)
    content = store.get(key)
    s3_environment.client().put_object(
        Bucket=store.address.removeprefix("s3://"),
        Key=key,
        Body=content[:-9] + b"9" + content[-8:],
        Metadata={"sha256": hashlib.sha256(content).hexdigest()},
    )
    with pytest.raises(IntegrityError, match=name):
        store.get(key)
    assert cache_in(store, TableTeacher()) == manifest
    assert store.get(key) == content


def test_writers_that_race_end_with_one_manifest(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        manifests = list(pool.map(lambda _: cache_in(store, TableTeacher()), range(8)))
    assert len({manifest.model_dump_json() for manifest in manifests}) == 1
    assert sum(entry.key.endswith("manifest.json") for entry in store.list("")) == 1
