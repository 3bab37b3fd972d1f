"""`recstill erase` and `recstill gc` where store and DVC's remote are a bucket, with a kill in the middle of each."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from components.provenance.receipts import receipts
from components.serving.packaging import PackageContent
from components.storage.object_store import open_store
from flows.auditing import collection
from flows.auditing.collection import Unneeded, collect, read_plan, unneeded, write_plan
from flows.auditing.places import opened_places
from flows.auditing.verifying import verify
from flows.repository import store_of
from flows.trust import trusted
from tests.integration.conftest import S3Server
from tests.unit.flows.auditing.people_checkout import PERSON, labelled, people_checkout, rows_of
from tests.unit.flows.small_checkout import SCENARIO
from tests.unit.serving.conftest import artifacts, content  # noqa: F401  # fixtures

STORE = ".recstill/store"
STRAY = b"rows of a run whose lock was never kept"
MD5 = hashlib.md5(STRAY).hexdigest()
RECSTILL = str(Path(sys.executable).parent / "recstill")
# Ends itself in the middle of the deletions.
KILLED = f"""
import os, signal, sys
from flows.auditing import purging
delete, left = purging.delete, [9]
def counted(*a):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    delete(*a)
purging.delete = counted
sys.argv = ["recstill", "erase", "--subject", {PERSON!r}, "--confirm"]
from flows.cli import main
main()
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, content: PackageContent) -> Path:  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        for name in ("STORE", "SIGNING_KEY", "TRUSTED_KEYS", "SUBJECT_KEY"):
            patch.delenv(f"RECSTILL_{name}", raising=False)
        root = people_checkout(tmp_path_factory.mktemp("people"), content).root
        stray = root / STORE / "dvc" / "files" / "md5" / MD5[:2] / MD5[2:]
        stray.parent.mkdir(exist_ok=True)
        stray.write_bytes(STRAY)
        labelled(store_of(root), "9" * 64)  # of data that nothing names
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path, s3_environment: S3Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkout, whose store is a bucket; the bytes of the versions are there and in DVC's cache."""
    for name in ("PREFECT_API_URL", "RECSTILL_SIGNING_KEY", "RECSTILL_TRUSTED_KEYS", "RECSTILL_SUBJECT_KEY"):
        monkeypatch.delenv(name, raising=False)
    copy = tmp_path / "checkout"
    shutil.copytree(made, copy, symlinks=True)
    address = f"s3://{s3_environment.new_bucket()}/team"
    store = open_store(address)
    for path in sorted((copy / STORE).rglob("*")):
        if path.is_file():
            one = path.read_bytes()
            store.put(path.relative_to(copy / STORE).as_posix(), one, hashlib.sha256(one).hexdigest())
    shutil.rmtree(copy / STORE)
    (copy / ".recstill" / "witness.json").unlink(missing_ok=True)
    monkeypatch.setenv("RECSTILL_STORE", address)
    monkeypatch.chdir(copy)
    return copy


def in_bucket(root: Path, place: Path) -> list[str]:
    """Objects of the bucket that hold the person, looked for in their bytes by the search of the unit tests."""
    store = store_of(root)
    for entry in store.list(""):
        path = place / entry.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(entry.key))
    shutil.copy2(root / "people.csv", place / "people.csv")
    found = rows_of(place, PERSON)
    shutil.rmtree(place)
    return found


def test_a_person_is_erased_from_a_bucket_though_the_first_call_is_killed(root: Path, tmp_path: Path) -> None:
    before = in_bucket(root, tmp_path / "before")
    assert any(key.startswith("dvc/") for key in before) and any(key.startswith("packages/") for key in before)
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=root, capture_output=True, check=False, timeout=400)
    assert killed.returncode == -9, killed.stderr.decode()
    assert receipts(store_of(root), trusted(root)) == []
    done = subprocess.run(
        [RECSTILL, "erase", "--subject", PERSON, "--confirm"],
        cwd=root, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert in_bucket(root, tmp_path / "after") == rows_of(root, PERSON) == []
    (receipt,) = receipts(store_of(root), trusted(root))
    assert {one.place for one in receipt.objects} >= {"cache", "store", "remote"}
    found = verify(root)
    assert found.damaged == []
    assert any("receipt 1" in one.problem for one in found.findings)


def test_what_nobody_needs_goes_from_a_bucket_though_the_first_call_is_interrupted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = timedelta(0)
    with opened_places(root) as places:
        plan = write_plan(root, unneeded(places, older_than=now))
        assert {one.name.split("/")[0] for one in plan.objects} == {MD5, "soft-labels"}
        delete, left = collection._delete, [2]

        def dies(places: object, one: Unneeded) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            delete(places, one)  # type: ignore[arg-type]

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(collection, "_delete", dies)
            collect(places, plan, older_than=now, scenarios=[SCENARIO], advance=lambda _: None)
    with opened_places(root) as places:
        again = read_plan(root, plan.id[:12])
        done = collect(places, again, older_than=now, scenarios=[SCENARIO], advance=lambda _: None)
        assert (len(done.gone), done.kept) == (len(plan.objects), ())
        assert unneeded(places, older_than=now) == []
    assert len(receipts(store_of(root), trusted(root))) == 1
    assert verify(root, resume=False).damaged == []
