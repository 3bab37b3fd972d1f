"""What nobody needs goes in two steps; what anybody needs never goes, and `dvc gc` would have taken it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from components.errors import DataError, IntegrityError, RecstillError
from components.provenance.receipts import erased, receipts
from components.serving.packaging import PackageContent
from flows.auditing import collection
from flows.auditing.collection import Collected, Plan, Unneeded, collect, read_plan, unneeded, write_plan
from flows.auditing.places import opened_places
from flows.auditing.verifying import verify
from flows.repository import store_of
from flows.trust import trusted
from flows.worktrees import BusyError, scenario_lock
from tests.unit.flows.auditing.people_checkout import PeopleCheckout, labelled, people_checkout
from tests.unit.flows.small_checkout import SCENARIO, git
from tests.unit.serving.conftest import artifacts, content  # noqa: F401  # fixtures

RECSTILL = str(Path(sys.executable).parent / "recstill")
DAY = timedelta(hours=24)
STRAY = b"rows of a run whose lock was never kept"
MD5 = hashlib.md5(STRAY).hexdigest()
PACKAGE = hashlib.sha256(b"{}").hexdigest()


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("STORE", "SIGNING_KEY", "TRUSTED_KEYS", "SUBJECT_KEY")
    for name in ("PREFECT_API_URL", *(f"RECSTILL_{one}" for one in names)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, content: PackageContent) -> PeopleCheckout:  # noqa: F811
    found = people_checkout(tmp_path_factory.mktemp("people"), content)
    # Two versions, and objects of DVC, a package and soft labels that nothing names.
    for place in (found.root / ".dvc" / "cache", found.root / ".recstill" / "store" / "dvc"):
        (place / "files" / "md5" / MD5[:2]).mkdir(exist_ok=True)
        (place / "files" / "md5" / MD5[:2] / MD5[2:]).write_bytes(STRAY)
    store = store_of(found.root)
    store.put(f"packages/{PACKAGE}/package.json", b"{}", PACKAGE)
    labelled(store, "9" * 64)
    return found


@pytest.fixture
def root(made: PeopleCheckout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy = tmp_path / "checkout"
    shutil.copytree(made.root, copy, symlinks=True)
    for path in copy.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            os.utime(path, (1e9, 1e9))
    monkeypatch.chdir(copy)
    return copy


def named(root: Path) -> list[Unneeded]:
    with opened_places(root) as places:
        return unneeded(places, older_than=DAY)


def carried_out(root: Path, plan: Plan) -> Collected:
    with opened_places(root) as places:
        return collect(places, plan, older_than=DAY, scenarios=[SCENARIO], advance=lambda _: None)


def test_exactly_what_nobody_needs_is_named_then_deleted_and_every_version_is_whole(root: Path) -> None:
    found = named(root)
    assert {(one.place, one.name.split("/")[0]) for one in found} == {
        ("cache", MD5),
        ("remote", MD5),
        ("store", "packages"),
        ("store", "soft-labels"),
    }
    plan = write_plan(root, found)
    assert verify(root).damaged == []
    done = carried_out(root, plan)
    assert (len(done.gone), done.kept) == (len(found), ())
    assert named(root) == []
    assert verify(root, resume=False).damaged == []
    (receipt,) = receipts(store_of(root), trusted(root))
    assert (receipt.kind, len(receipt.objects), receipt.why) == ("collection", len(found), f"plan {plan.id}")
    # Whoever verifies excuses nothing because of a collection.
    assert erased(receipts(store_of(root), trusted(root))) == frozenset()


def test_dvc_gc_on_the_same_checkout_loses_registered_bytes(root: Path) -> None:
    dvc = str(Path(sys.executable).parent / "dvc")
    remote = str(root / ".recstill" / "store" / "dvc")
    subprocess.run([dvc, "remote", "add", "-q", "-d", "here", remote], check=True)
    # The newest run is in the work tree, as whoever cleans up has it.
    lock = git(root, "show", "tiny@v2.0.0:dvc.lock")
    (root / "dvc.lock").write_text(lock + "\n")
    assert verify(root).damaged == []
    subprocess.run([dvc, "gc", "-q", "-c", "-w", "-f"], check=True, env={**os.environ, "DVC_NO_ANALYTICS": "1"})
    lost = verify(root, resume=False).damaged
    assert {version for one in lost for version in one.versions} == {"tiny@v1"}
    assert any(one.what.endswith("events.parquet") for one in lost)


def test_what_is_put_to_use_after_the_plan_stays(root: Path) -> None:
    plan = write_plan(root, named(root))
    lock = git(root, "show", "tiny@v2.0.0:dvc.lock")
    old = next(line.split()[1] for line in lock.splitlines() if line.strip().startswith("md5:") and ".dir" not in line)
    (root / "dvc.lock").write_text(lock.replace(old, MD5) + "\n")
    git(root, "add", "-f", "dvc.lock")
    git(root, "commit", "-q", "-m", "a branch that uses it")
    (root / "dvc.lock").unlink()
    done = carried_out(root, plan)
    assert {(one.place, one.name) for one in done.kept} == {("cache", MD5), ("remote", MD5)}
    assert len(done.gone) == len(plan.objects) - 2


def test_what_is_young_is_left_alone(root: Path) -> None:
    for path in (root / ".dvc" / "cache", root / ".recstill" / "store"):
        for file in path.rglob("*"):
            if file.is_file():
                os.utime(file)
    assert named(root) == []


def test_what_is_recalled_stays_as_evidence(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.provenance import recalls

    class One:
        digests = frozenset({MD5, PACKAGE})

    monkeypatch.setattr(recalls, "recalls", lambda store, keys: [One()])
    assert {one.name.split("/")[0] for one in named(root)} == {"soft-labels"}


def test_a_listing_that_is_nowhere_makes_it_name_nothing(root: Path) -> None:
    listing = next(
        line.split()[1] for line in git(root, "show", "tiny@v1.0.0:dvc.lock").splitlines() if line.endswith(".dir")
    )
    for place in (".dvc/cache", ".recstill/store/dvc"):
        (root / place / "files" / "md5" / listing[:2] / listing[2:]).unlink()
    with pytest.raises(RecstillError, match="not known what is needed"):
        named(root)


def test_a_version_whose_commit_is_not_here_makes_it_name_nothing(root: Path) -> None:
    git(root, "tag", "-d", "tiny@v1.0.0")
    git(root, "branch", "-D", "recstill/tiny/aaaaaaaaaaaa")
    git(root, "reflog", "expire", "--expire=now", "--all")
    git(root, "gc", "-q", "--prune=now")
    with pytest.raises(RecstillError, match="tiny@v1"):
        named(root)


def test_a_tag_alone_keeps_a_version(root: Path) -> None:
    before = named(root)
    git(root, "branch", "-D", "recstill/tiny/aaaaaaaaaaaa")
    assert named(root) == before
    carried_out(root, write_plan(root, before))
    assert verify(root, resume=False).damaged == []


def test_no_retraining_may_be_at_work(root: Path) -> None:
    plan = write_plan(root, named(root))
    with scenario_lock(root, SCENARIO), pytest.raises(BusyError):
        carried_out(root, plan)
    assert len(named(root)) == len(plan.objects)


def test_a_reproduction_that_is_at_work_stays_however_old_it_looks(root: Path) -> None:
    tree = root / ".recstill" / "reproduced" / "tiny-v1"
    tree.mkdir(parents=True)
    os.utime(tree, (1e9, 1e9))
    lock = root / ".recstill" / "locks" / "reproduce-tiny-v1.lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert "tree" not in {one.place for one in named(root)}
    assert "tree" in {one.place for one in named(root)}


def test_interrupted_anywhere_the_same_call_goes_on_to_one_receipt(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = write_plan(root, named(root))
    delete, left = collection._delete, [3]

    def dies(places: object, one: Unneeded) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        delete(places, one)  # type: ignore[arg-type]

    monkeypatch.setattr(collection, "_delete", dies)
    with pytest.raises(KeyboardInterrupt):
        carried_out(root, plan)
    monkeypatch.setattr(collection, "_delete", delete)
    done = carried_out(root, read_plan(root, plan.id[:12]))
    assert len(done.gone) == len(plan.objects)
    assert not (root / ".recstill" / "gc" / f"{plan.id}.json").exists()
    (receipt,) = receipts(store_of(root), trusted(root))
    assert len(receipt.objects) == len(plan.objects)


def test_a_plan_that_was_changed_or_is_unknown_is_refused(root: Path) -> None:
    plan = write_plan(root, named(root))
    path = root / ".recstill" / "gc" / f"{plan.id}.json"
    record = json.loads(path.read_text())
    record["objects"][0]["name"] = "soft-labels/other"
    path.write_text(json.dumps(record))
    with pytest.raises(IntegrityError, match="changed since"):
        read_plan(root, plan.id[:12])
    with pytest.raises(DataError, match="names 0 plans"):
        read_plan(root, "abcdef123456")


def test_the_command_names_then_waits_then_deletes(root: Path) -> None:
    def gc(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([RECSTILL, "gc", *options], capture_output=True, text=True, check=False, timeout=120)

    assert json.loads(gc("--dry-run", "--json").stdout)["plan"] is None
    made = json.loads(gc("--json").stdout)
    young = gc("--confirm", made["plan"][:12])
    assert (young.returncode, "too young" in young.stderr) == (1, True)
    done = gc("--confirm", made["plan"][:12], "--now")
    assert done.returncode == 0, done.stderr
    assert "not waited" in done.stdout
    assert "receipt 1" in done.stdout
