"""After an erasure nobody finds the person's rows in anything that Recstill has made, and all else is whole."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
import yaml
from typer.testing import CliRunner

from components.data.subject_key import subject_key_made
from components.errors import RecstillError
from components.provenance.receipts import erased, receipts
from components.provenance.signed_log import SignedLog
from components.serving.packaging import PackageContent
from components.serving.releases import read_release, verify_release
from flows import erase_cli
from flows.auditing import purging
from flows.auditing.exit_status import FOUND
from flows.auditing.lock_history import LockHistory
from flows.auditing.person_plan import find_person
from flows.auditing.places import opened_places
from flows.auditing.verifying import verify
from flows.dvc_remote import verify_pushed
from flows.repository import keys_of, store_of
from flows.trust import trusted
from flows.worktrees import scenario_lock
from tests.unit.flows.auditing.people_checkout import OTHER, PERSON, PeopleCheckout, people_checkout, rows_of
from tests.unit.flows.small_checkout import SCENARIO, git
from tests.unit.serving.conftest import artifacts, content  # noqa: F401  # fixtures

RECSTILL = str(Path(sys.executable).parent / "recstill")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("STORE", "SIGNING_KEY", "TRUSTED_KEYS", "SUBJECT_KEY")
    for name in ("PREFECT_API_URL", *(f"RECSTILL_{one}" for one in names)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, content: PackageContent) -> PeopleCheckout:  # noqa: F811
    return people_checkout(tmp_path_factory.mktemp("people"), content)


@pytest.fixture
def root(made: PeopleCheckout, tmp_path: Path) -> Path:
    shutil.copytree(made.root, tmp_path / "checkout", symlinks=True)
    return tmp_path / "checkout"


def erase(root: Path, *options: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [RECSTILL, "erase", *options]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False, input=text)


def within(root: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    """The command in this process: its status, its document, and its error."""
    app = typer.Typer()
    app.callback()(lambda: None)
    erase_cli.register(app)
    with contextlib.chdir(root):
        done = CliRunner().invoke(app, ["erase", *options, "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit | RecstillError), done.exception
    return done.exit_code, json.loads(done.stdout or "{}"), str(done.exception or "")


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def state(root: Path) -> dict[str, bytes]:
    """What lies in the checkout, but for locks, DVC's notes and git's own files."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not {".git", "tmp", "locks", "keys"} & set(path.relative_to(root).parts)
    }


def test_a_dry_run_names_all_of_it_and_changes_nothing(root: Path) -> None:
    before = state(root)
    done = erase(root, "--subject", PERSON, "--json")
    assert done.returncode == FOUND, done.stderr
    found = document(done)
    assert state(root) == before
    assert [(one["scenario"], one["versions"], one["rows"] > 5, one["in_dataset"]) for one in found["data"]] == [
        ("tiny", ["tiny@v1"], True, True)
    ]
    assert found["releases"] == found["golden_requests"] == ["tiny@v1"]
    assert len(found["soft_label_caches"]) == 1
    assert found["follows"] == {"package": 1, "soft_labels": 1}
    assert PERSON not in done.stdout + done.stderr
    what = {(one["place"], one["what"].rpartition("/")[2]) for one in found["plan"]}
    for name in ("events.parquet", "rejected.parquet", "users.parquet", "train.parquet", "golden.json"):
        assert {("remote", name), ("cache", name)} <= what
    assert ("store", "tiny@v1: golden.json") in what
    shown = erase(root, "--subject", "-", text=f"{PERSON}\n")
    assert "Nothing was changed" in shown.stdout
    assert "tiny@v1" in shown.stdout


def test_somebody_who_is_nowhere_is_told_so(root: Path) -> None:
    done = erase(root, "--subject", "nobody@example.org", "--confirm")
    assert done.returncode == 0
    assert "in none of 2 versions" in done.stdout


def test_a_mistyped_scenario_is_an_error_and_not_the_answer_that_they_are_nowhere(root: Path) -> None:
    done = erase(root, "--subject", PERSON, "--scenario", "tinny")
    assert (done.returncode, "the nearest known one is 'tiny'" in done.stderr, "Traceback" in done.stderr) == (
        1,
        True,
        False,
    )


def test_afterwards_nothing_holds_the_person_and_everything_else_is_whole(root: Path) -> None:
    people_before = rows_of(root, PERSON)
    # The control: the same search finds them before, in every kind of place.
    assert any(path.startswith(".dvc/cache") for path in people_before)
    assert any(path.startswith(".recstill/store/dvc") for path in people_before)
    assert any(path.startswith(".recstill/store/packages") for path in people_before)
    assert verify(root).damaged == []
    before, others_before = state(root), set(rows_of(root, OTHER))
    done = erase(root, "--subject", PERSON, "--confirm", "--reason", "they asked", "--json")
    assert done.returncode == 0, done.stderr
    assert rows_of(root, PERSON) == []

    # Nothing went that did not have to: what a second version is made of is there, byte for byte.
    after = state(root)
    gone = set(before) - set(after)
    named = erased(receipts(store_of(root), trusted(root)))
    for path in gone:
        name = "".join(path.split("/")[-2:])
        assert name in named or path.removeprefix(".recstill/store/") in named or path.startswith("artifacts/"), path
    changed = {path for path in after if path in before and before[path] != after[path]}
    assert changed <= {"params.yaml", ".recstill/witness.json"}
    assert set(rows_of(root, OTHER)) <= others_before
    second = read_release(store_of(root), SCENARIO, 2, trusted(root))
    assert verify_release(store_of(root), second) == []
    assert verify_pushed(root, SCENARIO, second.commit) == []

    # The chain of the first one still verifies, but for what the receipt names.
    first = read_release(store_of(root), SCENARIO, 1, trusted(root))
    assert {first.files["golden.json"]} <= named
    assert [line for line in verify_release(store_of(root), first) if "golden.json" not in line] == []
    missing = [line.partition(":")[0] for line in verify_pushed(root, SCENARIO, first.commit)]
    assert set(missing) == {
        one.what for one in receipts(store_of(root), trusted(root))[0].objects if one.place == "remote"
    }

    # `recstill verify` knows of the receipt: no damage, and each that is gone is told as a note.
    verified = verify(root)
    assert verified.damaged == []
    assert {"golden.json"} <= {one.what.rpartition("/")[2] for one in verified.findings if "receipt 1" in one.problem}
    shutil.rmtree(root / ".recstill" / "store" / "receipts")
    assert len(verify(root, resume=False).damaged) > 5

    # The receipt is signed and names digests only.
    receipt = document(done)["receipt"]
    assert (receipt["number"], receipt["why"], receipt["who"]) == (1, "they asked", "Tess Ter")
    assert PERSON not in json.dumps(receipt)
    source = yaml.safe_load((root / "params.yaml").read_text())["scenarios"]["tiny"]["source"]
    assert source["exclude"] == {"key": receipt["key"], "subjects": [receipt["subject"]]}


def test_deleting_the_newest_data_alone_would_leave_the_person_everywhere_else(root: Path) -> None:
    # The naive twin: what somebody does who knows of the outputs in front of them.
    shutil.rmtree(root / "artifacts")
    subprocess.run(
        [str(Path(RECSTILL).with_name("dvc")), "gc", "-w", "-f", "-q"], cwd=root, check=False, env={**os.environ}
    )
    assert len(rows_of(root, PERSON)) >= 5


@pytest.mark.parametrize("sketched", [True, False])
def test_asked_again_it_says_what_was_erased_and_writes_no_second_receipt(root: Path, sketched: bool) -> None:
    if not sketched:  # versions from before there were sketches
        shutil.rmtree(root / ".recstill" / "store" / "subjects")
    assert erase(root, "--subject", PERSON, "--confirm").returncode == 0
    done = erase(root, "--subject", PERSON, "--confirm", "--json")
    assert done.returncode == 0, done.stderr
    found = document(done)
    assert (found["data"], found["plan"], found["receipts"]) == ([], [], [1])
    assert [one["known_by"] for one in found["erased"]] == ["erased"]
    assert len(receipts(store_of(root), trusted(root))) == 1


def test_killed_after_any_deletion_the_same_command_goes_on(root: Path, tmp_path: Path) -> None:
    total = len(document(erase(root, "--subject", PERSON, "--json"))["plan"])
    ends = set()
    for number in (0, 1, total // 2, total):
        copy = tmp_path / f"copy-{number}"
        shutil.copytree(root, copy, symlinks=True)
        assert _killed(copy, number) == -9
        assert len(receipts(store_of(copy), trusted(copy))) == 0
        done = erase(copy, "--subject", PERSON, "--confirm", "--json")
        assert done.returncode == 0, done.stderr
        assert rows_of(copy, PERSON) == []
        assert not list((copy / ".recstill" / "erasures").glob("*"))
        (receipt,) = receipts(store_of(copy), trusted(copy))
        ends.add((receipt.subject, tuple((one.place, one.name) for one in receipt.objects)))
        shutil.rmtree(copy)
    assert len(ends) == 1  # whatever the kill, one receipt, of the same objects


def test_killed_between_receipt_and_the_end_there_is_one_receipt(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _killed(root, None) == -9
    assert len(receipts(store_of(root), trusted(root))) == 1
    done = erase(root, "--subject", PERSON, "--confirm")
    assert done.returncode == 0, done.stderr
    assert len(receipts(store_of(root), trusted(root))) == 1
    assert not list((root / ".recstill" / "erasures").glob("*"))


def _killed(root: Path, number: int | None) -> int:
    """Run the command in a process that kills itself before its n-th deletion; None: once the receipt is written."""
    code = f"""
import os, signal, sys
from flows.auditing import purging
count = 0
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
if {number!r} is None:
    write = purging.keep_receipt
    purging.keep_receipt = lambda *a, **k: (write(*a, **k), die())
else:
    delete = purging.delete
    def counted(*a):
        global count
        if count == {number!r}:
            die()
        count += 1
        delete(*a)
    purging.delete = counted
    purging.keep_receipt = die
sys.argv = ["recstill", "erase", "--subject", {PERSON!r}, "--confirm"]
from flows.cli import main
main()
"""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, timeout=120, check=False
    ).returncode


def test_nothing_is_deleted_while_a_version_made_from_the_person_is_live(root: Path) -> None:
    live = subprocess.run([RECSTILL, "deploy", "tiny@v1"], cwd=root, capture_output=True, text=True, check=False)
    assert live.returncode == 0, live.stderr
    before = set(rows_of(root, PERSON))
    done = erase(root, "--subject", PERSON, "--confirm")
    assert done.returncode == 1
    assert "tiny@v1 is live" in done.stderr
    assert "recstill retrain tiny" in done.stderr
    assert set(rows_of(root, PERSON)) == before
    assert "exclude" in (root / "params.yaml").read_text()  # the next run has no trace of them
    assert subprocess.run([RECSTILL, "deploy", "tiny@v2"], cwd=root, capture_output=True, check=False).returncode == 0
    done = erase(root, "--subject", PERSON, "--confirm")
    assert done.returncode == 0, done.stderr
    assert rows_of(root, PERSON) == []


def test_models_go_too_when_that_is_asked_for(root: Path) -> None:
    first = read_release(store_of(root), SCENARIO, 1, trusted(root))
    assert erase(root, "--subject", PERSON, "--confirm", "--purge-models").returncode == 0
    assert store_of(root).size(first.key("model.onnx")) is None
    second = read_release(store_of(root), SCENARIO, 2, trusted(root))
    assert verify_release(store_of(root), second) == []


def test_data_that_no_lock_names_are_looked_into(root: Path) -> None:
    # A run that ended, and whose lock was never kept: its objects stay in DVC's cache.
    rows = pl.DataFrame({"user": [PERSON, OTHER], "item": ["1", "2"], "timestamp": [1, 2]})
    place = root / ".dvc" / "cache" / "files" / "md5" / "ab"
    place.mkdir(exist_ok=True)
    rows.write_parquet(root / "stray.parquet")
    md5 = hashlib.md5((root / "stray.parquet").read_bytes()).hexdigest()
    target = root / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]
    target.parent.mkdir(exist_ok=True)
    (root / "stray.parquet").rename(target)
    assert erase(root, "--subject", PERSON, "--confirm").returncode == 0
    assert not target.exists()


def test_copies_in_work_trees_and_readers_caches_go(root: Path) -> None:
    tree = root / ".recstill" / "worktrees" / "tiny-000000000000"
    git(root, "worktree", "add", "-q", "--detach", str(tree))
    champion = tree / ".recstill" / "champion" / "dataset"
    shutil.copytree(root / "made" / "dataset", champion)
    first = document(erase(root, "--subject", PERSON, "--json"))
    manifest = store_of(root).get(f"soft-labels/{first['soft_label_caches'][0]}/manifest.json")
    part = json.loads(manifest)["parts"][0]["content_sha256"]
    cached = root / ".recstill" / "soft-label-cache" / f"{part}.safetensors"
    cached.parent.mkdir()
    cached.write_bytes(b"labels")
    assert erase(root, "--subject", OTHER, "--confirm").returncode == 0
    assert not cached.exists()
    assert not (champion / "users.parquet").exists()
    assert rows_of(root, OTHER) == []


def test_a_sketch_of_another_key_makes_it_read_the_bytes(root: Path) -> None:
    (root / ".recstill" / "keys" / "subject.key").write_text("ab" * 32)
    found = document(erase(root, "--subject", PERSON, "--json"))
    assert [one["known_by"] for one in found["data"]] == ["bytes"]
    assert found["unknown"] == []


def test_a_cut_or_forged_receipt_log_is_an_error(root: Path) -> None:
    assert erase(root, "--subject", PERSON, "--confirm").returncode == 0
    store, log = store_of(root), SignedLog(store_of(root), "receipts", "")
    path = root / ".recstill" / "store" / log.key(1)
    path.write_bytes(path.read_bytes().replace(b'"payload": "', b'"payload": "A', 1))
    done = erase(root, "--subject", OTHER)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert store.size(log.key(1)) is not None


def test_the_journal_of_an_erasure_that_is_damaged_is_told(root: Path) -> None:
    mark = document(erase(root, "--subject", PERSON, "--json"))["subject"]
    path = purging.journal_of(root, mark)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    done = erase(root, "--subject", PERSON)
    assert done.returncode == 1
    assert str(path) in done.stderr


def test_a_retraining_whose_champion_lost_its_data_to_an_erasure_is_not_stuck(root: Path) -> None:
    from components.errors import IntegrityError
    from flows.challenge import champion_dataset
    from flows.params import read_params
    from flows.surveying import Survey

    store, first = store_of(root), read_release(store_of(root), SCENARIO, 1, trusted(root))
    found = Survey(
        name=SCENARIO,
        checkout=root,
        tree=root,
        store=store,
        commit=first.commit,
        changes=(),
        settings=read_params(root).scenarios[SCENARIO],
        prepared=(),
        rest=(),
        champion=first,
        key="0" * 64,
        dataset={},
        source={},
        record=None,
    )
    dataset = champion_dataset(found)
    assert dataset is not None
    assert dataset.digest == first.lineage["dataset"]
    shutil.rmtree(root / ".recstill" / "champion")
    assert erase(root, "--subject", PERSON, "--confirm").returncode == 0
    assert champion_dataset(found) is None
    shutil.rmtree(root / ".recstill" / "store" / "receipts")  # lost, and not erased: that is an error
    with pytest.raises(IntegrityError):
        champion_dataset(found)


def test_data_of_which_nobody_can_say_whether_they_are_in_it_are_no_success(root: Path) -> None:
    (held,) = within(root, "--subject", PERSON)[1]["data"]
    md5 = held["outputs"]["artifacts/tiny/events.parquet"]
    shutil.rmtree(root / ".recstill" / "store" / "subjects")
    for place in (".dvc/cache", ".recstill/store/dvc"):
        (root / place / "files" / "md5" / md5[:2] / md5[2:]).unlink()
    status, found, _ = within(root, "--subject", "nobody@example.org")
    assert status == FOUND
    assert [one["versions"] for one in found["unknown"]] == [["tiny@v1"]]


def test_a_forged_sketch_hides_nobody(root: Path) -> None:
    (path,) = [
        one
        for one in (root / ".recstill" / "store" / "subjects").iterdir()
        if json.loads(one.read_text())["count"] == 40
    ]
    sketch = json.loads(path.read_text())
    mark = bytes.fromhex(within(root, "--subject", PERSON)[1]["subject"])
    marks = base64.b64decode(sketch["marks"])
    position = next(start for start in range(0, len(marks), 12) if marks[start : start + 12] == mark)
    marks = marks[:position] + marks[position + 12 :]
    told = {"marks": base64.b64encode(marks).decode(), "sha256": hashlib.sha256(marks).hexdigest(), "count": 39}
    path.write_text(json.dumps({**sketch, **told}))
    found = within(root, "--subject", PERSON)[1]
    assert [one["known_by"] for one in found["data"]] == ["bytes"]


def test_nothing_is_deleted_while_a_retraining_is_at_work(root: Path) -> None:
    before = set(rows_of(root, PERSON))
    with scenario_lock(root, SCENARIO):
        status, _, error = within(root, "--subject", PERSON, "--confirm")
    assert (status, "a retraining of tiny is at work already" in error) == (1, True)
    assert set(rows_of(root, PERSON)) == before
    assert "exclude" not in (root / "params.yaml").read_text()


def test_what_is_there_again_gets_no_receipt_that_it_is_gone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with opened_places(root) as places:
        history = LockHistory.read(root)
        found = find_person(places, history, PERSON, subject_key_made(keys_of(root)), lambda _: None)
        plan = purging.planned(places, history, found, PERSON, models=False)
        with monkeypatch.context() as patch:
            patch.setattr(purging, "delete", lambda places, target: None)
            receipt, left = purging.carry_out(places, plan, lambda _: None)
    assert (receipt, left) == (None, plan.targets)
    assert receipts(store_of(root), trusted(root)) == []
    assert within(root, "--subject", PERSON, "--confirm")[0] == 0
    assert len(receipts(store_of(root), trusted(root))) == 1
    assert rows_of(root, PERSON) == []


def test_copies_of_killed_commands_of_evidence_and_of_reproductions_go(root: Path) -> None:
    first = within(root, "--subject", PERSON)[1]
    release = read_release(store_of(root), SCENARIO, 1, trusted(root))
    golden = root / ".recstill" / "evidence" / "tiny-v1" / "release" / "golden.json"
    golden.parent.mkdir(parents=True)
    golden.write_bytes(store_of(root).get(release.key("golden.json")))
    looked_into = root / ".recstill" / "scratch" / "killed" / "events.parquet"
    looked_into.parent.mkdir(parents=True)
    looked_into.write_bytes((root / "artifacts" / "tiny" / "events.parquet").read_bytes())
    tree = root / ".recstill" / "reproduced" / "tiny-v1"
    git(root, "worktree", "add", "-q", "--detach", str(tree))
    cache = first["soft_label_caches"][0]
    labels = tree / ".recstill" / "store" / "soft-labels" / cache / "part-00000.safetensors"
    labels.parent.mkdir(parents=True)
    labels.write_bytes(b"labels")
    assert within(root, "--subject", PERSON, "--confirm")[0] == 0
    assert not any(path.exists() for path in (golden, looked_into, labels))
    assert rows_of(root, PERSON) == []


def test_a_release_that_no_branch_or_tag_here_names_is_found_by_its_statements(root: Path) -> None:
    git(root, "tag", "-d", "tiny@v1.0.0")
    git(root, "branch", "-D", "recstill/tiny/aaaaaaaaaaaa")
    git(root, "reflog", "expire", "--expire=now", "--all")
    git(root, "gc", "-q", "--prune=now")
    found = within(root, "--subject", PERSON)[1]
    assert (found["releases"], found["golden_requests"]) == (["tiny@v1"], ["tiny@v1"])
    assert len(found["soft_label_caches"]) == 1
    assert within(root, "--subject", PERSON, "--confirm")[0] == 0
    assert rows_of(root, PERSON) == []
