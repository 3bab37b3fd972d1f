import os
from dataclasses import replace
from pathlib import Path

import pytest

from components.errors import IntegrityError
from components.provenance.signing import SigningKey, signing_key
from components.storage.contract import ObjectStore
from components.storage.folder_store import FolderStore
from flows import runs
from flows.runs import RunRecord

RECORD = RunRecord(
    name="shop",
    key="a" * 64,
    status="passed",
    dataset="d" * 64,
    commit="c" * 40,
    changes=("scenarios.shop.source.as_of='2026-01-01T00:00:00Z'",),
    champion=2,
    verdict={"passed": True, "reasons": []},
)


@pytest.fixture(scope="module", autouse=True)
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RECSTILL_SIGNING_KEY", raising=False)
        _KEYS[:] = [signing_key(tmp_path_factory.mktemp("keys"))]
    return _KEYS[0]


_KEYS: list[SigningKey] = []


def read_run(store: ObjectStore, name: str, run: str) -> RunRecord | None:
    return runs.read_run(store, name, run, [_KEYS[0].public])


def claim_run(store: ObjectStore, record: RunRecord) -> RunRecord:
    return runs.claim_run(store, record, [_KEYS[0].public], _KEYS[0])


def write_run(store: ObjectStore, record: RunRecord) -> None:
    runs.write_run(store, record, _KEYS[0])


def unfinished_runs(store: ObjectStore, name: str) -> list[RunRecord]:
    return runs.unfinished_runs(store, name, [_KEYS[0].public])


def test_that_a_run_has_passed_nobody_can_say_who_has_no_trusted_key(tmp_path: Path) -> None:
    store, stranger = FolderStore(tmp_path / "store"), signing_key(tmp_path / "stranger")
    write_run(store, replace(RECORD, status="refused"))
    runs.write_run(store, RECORD, stranger)  # the gate has refused it, and somebody lets it through
    with pytest.raises(IntegrityError, match="no trusted key has signed"):
        read_run(store, "shop", "a" * 64)
    with pytest.raises(IntegrityError, match="no trusted key has signed"):
        unfinished_runs(store, "shop")


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert read_run(store, "shop", "a" * 64) is None
    assert claim_run(store, RECORD) == RECORD == read_run(store, "shop", "a" * 64)
    ended = replace(RECORD, status="registered", version=3, attestation="e" * 64)
    write_run(store, ended)
    assert read_run(store, "shop", "a" * 64) == ended


def test_of_two_that_race_both_go_on_with_the_first_ones_record(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    claim_run(store, RECORD)
    assert claim_run(store, replace(RECORD, champion=5, changes=())) == RECORD


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format": 2}', b"\xff"])
def test_a_damaged_record_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "runs" / "shop" / f"{'a' * 64}.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="the record of a run cannot be used"):
        read_run(FolderStore(tmp_path), "shop", "a" * 64)


def test_a_record_under_another_name_is_not_taken(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    write_run(store, RECORD)
    (tmp_path / "runs" / "shop" / f"{'a' * 64}.json").rename(tmp_path / "runs" / "shop" / f"{'b' * 64}.json")
    with pytest.raises(IntegrityError):
        read_run(store, "shop", "b" * 64)


def test_a_refusal_has_its_reasons() -> None:
    refused = replace(RECORD, status="refused", verdict={"passed": False, "reasons": ["quality: worse"]})
    assert refused.reasons == ["quality: worse"]


def test_what_has_passed_and_is_no_version_yet_is_found_the_oldest_first(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    later = replace(RECORD, key="0" * 64)
    claim_run(store, RECORD)
    write_run(store, later)
    write_run(store, replace(RECORD, key="b" * 64, status="refused"))
    write_run(store, replace(RECORD, name="toys"))
    for age, one in ((20, RECORD), (10, later)):
        path = tmp_path / "runs/shop/unfinished" / one.key
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    assert unfinished_runs(store, "shop") == [RECORD, later]
    write_run(store, replace(RECORD, status="registered", version=3))
    assert unfinished_runs(store, "shop") == [later]


def test_a_kill_between_a_mark_and_its_record_leaves_nothing_to_finish(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    claim_run(store, RECORD)
    mark = tmp_path / "runs/shop/unfinished" / RECORD.key
    # Before the record was written.
    (tmp_path / f"runs/shop/{RECORD.key}.json").rename(tmp_path / "kept")
    assert unfinished_runs(store, "shop") == [] and mark.exists()
    # After it had ended, before the mark was taken away.
    write_run(store, replace(RECORD, status="registered", version=3))
    mark.write_bytes(b"")
    assert unfinished_runs(store, "shop") == [] and not mark.exists()
