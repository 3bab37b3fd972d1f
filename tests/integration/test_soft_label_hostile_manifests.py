"""Manifests and records that are not what a writer wrote: refused, or found out before a wrong label is used."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components.errors import IntegrityError, RecstillError, StorageError
from components.soft_labels.manifest import Manifest, read_manifest, written
from components.soft_labels.reader import SoftLabelReader, open_labels
from components.storage.contract import ObjectStore
from components.storage.folder_store import FolderStore
from components.storage.object_store import open_store
from tests.integration.killed_writers import LoggedTeacher, dataset_of, is_partial, write
from tests.integration.naive import joined

FLIPS = 300
Change = Callable[[dict[str, Any]], object]
DATASET = dataset_of("manifests")


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    address = f"file://{tmp_path / 'store'}"
    if request.param == "s3":
        address = f"s3://{request.getfixturevalue('s3_environment').new_bucket()}"
    monkeypatch.setenv("RECSTILL_STORE", address)
    return open_store()


@pytest.fixture
def manifest(store: ObjectStore, tmp_path: Path) -> Manifest:
    return write(store, LoggedTeacher(tmp_path / "asked"), DATASET)


def named(name: str) -> Change:
    return lambda record: record["parts"][1].update(name=name)


def first(record: dict[str, Any]) -> dict[str, Any]:
    return dict(record["parts"][0])


CHANGES: dict[str, Change] = {
    "up": named("../../../secret"),
    "up inside": named("part-00001-0123456789abcdef.safetensors/../../../secret"),
    "absolute": named("/etc/passwd"),
    "url": named("file:///etc/passwd"),
    "empty": named(""),
    "null byte": named("part-00001-0123456789abcdef.safetensors\0"),
    "other content": named("part-00001-0123456789abcdef.safetensors"),
    "one part too many": lambda record: record["parts"].append(first(record)),
    "thousands of parts": lambda record: record.update(parts=[first(record)] * 20_000),
    "the same part twice": lambda record: record["parts"].__setitem__(1, first(record)),
    "a part less": lambda record: record["parts"].pop(),
    "another order": lambda record: record["parts"].reverse(),
    "no parts": lambda record: record.update(parts=[]),
    "negative row": lambda record: record["parts"][0].update(first=-1),
    "no rows": lambda record: record["parts"][0].update(rows=0),
    "more rows than there are": lambda record: record.update(rows=record["rows"] + 1),
    "another id": lambda record: record.update(id="0" * 64),
    "another teacher": lambda record: record.update(teacher="0" * 64),
    "another data set": lambda record: record.update(dataset="0" * 64),
    "id with a path": lambda record: record.update(id="../" + record["id"][3:]),
    "short digest": lambda record: record["parts"][0].update(sha256=record["parts"][0]["sha256"][:60]),
    "another format": lambda record: record.update(format=99),
    "an unknown key": lambda record: record.update(remark="hello"),
    "no list": lambda record: record.update(parts={"0": first(record)}),
}


@pytest.mark.parametrize("store", ["folder"], indirect=True)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_manifest_that_no_writer_wrote_is_refused_by_its_name(
    manifest: Manifest, change: Change, tmp_path: Path
) -> None:
    record = copy.deepcopy(manifest.model_dump(mode="json"))
    change(record)
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(record))
    with pytest.raises(IntegrityError, match=r"manifest\.json") as caught:
        open_labels(file, DATASET, tmp_path / "cache")
    assert len(str(caught.value)) < 1000
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["../secret", "/secret", "a/../../secret", "..", "a//b", ".hidden", "a\0b", "a\nb"])
def test_no_store_takes_a_key_that_leads_elsewhere(store: ObjectStore, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    digest = hashlib.sha256(b"secret").hexdigest()
    for use in (
        lambda: store.get(name),
        lambda: store.get_to_file(name, tmp_path / "target", digest),
        lambda: store.put(name, b"secret", digest),
        lambda: store.put_if_absent(name, b"secret", digest),
        lambda: store.size(name),
        lambda: store.delete(name),
        lambda: store.local_file(name),
    ):
        with pytest.raises(StorageError, match="not a valid object key"):
            use()
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_a_store_that_joins_folder_and_name_hands_over_what_lies_elsewhere(tmp_path: Path) -> None:
    """The naive twin of the two tests above."""
    (tmp_path / "store").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    for name in ("../secret", str(tmp_path / "secret")):
        assert joined(tmp_path / "store", name) == b"secret"


def test_no_flip_in_a_manifest_changes_a_label_in_silence(
    store: ObjectStore, manifest: Manifest, tmp_path: Path
) -> None:
    """What a flip can change without being refused is no more than a figure about the cache."""
    content, seeded = written(manifest), random.Random(7)
    points = torch.arange(manifest.rows)
    expected = SoftLabelReader(store, manifest, tmp_path / "cache").labels(points)
    refused = figures = wrong = naive = 0
    for _ in range(FLIPS):
        spoiled = bytearray(content)
        spoiled[seeded.randrange(len(spoiled))] ^= 1 << seeded.randrange(8)
        try:
            naive += json.loads(spoiled) is not None
        except ValueError:
            naive += 0
        try:
            found = read_manifest(bytes(spoiled), "manifest.json")
            labels = SoftLabelReader(store, found, tmp_path / "cache").labels(points)
        except RecstillError:
            refused += 1
            continue
        figures += 1
        wrong += not torch.equal(labels.log_probs, expected.log_probs)
    print(f"flips in a manifest={FLIPS} refused={refused} figures_only={figures} wrong={wrong} naive_accepted={naive}")
    assert wrong == 0
    assert naive > figures


@pytest.mark.parametrize("store", ["folder"], indirect=True)
def test_a_flip_in_any_record_or_manifest_of_the_store_is_mended_by_the_next_writer(
    store: FolderStore, manifest: Manifest, tmp_path: Path
) -> None:
    teacher, seeded, flips, differing = LoggedTeacher(tmp_path / "asked"), random.Random(8), 0, []
    for entry in [entry for entry in store.list("") if entry.key.endswith(".json")] * 8:
        path = store.local_file(entry.key)
        assert path is not None
        spoiled = bytearray(path.read_bytes())
        place = seeded.randrange(len(spoiled))
        spoiled[place] ^= 1 << seeded.randrange(8)
        path.write_bytes(bytes(spoiled))
        flips += 1
        write(store, teacher, DATASET)
        if is_partial(store, DATASET) is not False or store.get(manifest.key("manifest.json")) != written(manifest):
            differing.append((entry.key, bytes(spoiled[place - 20 : place + 20])))
            path.unlink()
            write(store, teacher, DATASET)
    print(f"flips in records and manifest of the store={flips} not_mended={len(differing)}")
    assert differing == []
