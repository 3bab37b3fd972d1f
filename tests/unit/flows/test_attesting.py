"""Statements of a run's stages: made by the run, or afterwards; and what stands in their way fails no run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from components.errors import IntegrityError
from components.provenance.signing import signing_key, trusted_keys
from components.provenance.stage_statement import StageStatement, entry_id, find_statement, statement_key
from flows.attesting import attest_missing, attest_run, statements_of
from flows.graph import StageResult
from flows.locked_outputs import lock_stages
from flows.repository import keys_of, store_of
from tests.unit.flows.small_checkout import SCENARIO, git, small_checkout

ADDRESS = f"make@{SCENARIO}"
RAN = StageResult(ADDRESS, "ran", started=1_777_800_000.0, seconds=2.5, own_seconds=2.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkout(tmp_path_factory.mktemp("made"))


@pytest.fixture
def checkout(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RECSTILL_STORE", "RECSTILL_SIGNING_KEY", "RECSTILL_TRUSTED_KEYS"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(made, tmp_path / "checkout", symlinks=True)
    return tmp_path / "checkout"


def run(checkout: Path, *results: StageResult) -> list[str]:
    said: list[str] = []
    attest_run(checkout, SCENARIO, results, said.append)
    # The files that this scenario calls tables are none, which the sketch of who is in them tells on a line of its own.
    return [line for line in said if "sketch" not in line]


def stored(checkout: Path) -> StageStatement:
    entry = entry_id(lock_stages(checkout)[ADDRESS])
    found = find_statement(store_of(checkout), SCENARIO, entry, trusted_keys(keys_of(checkout)))
    assert found is not None
    return found


def test_a_run_attests_what_it_made(checkout: Path) -> None:
    (line,) = run(checkout, RAN)
    assert "1 stages attested" in line and "not who made them" in line
    one = stored(checkout)
    assert (one.address, one.attached, one.dirty) == (ADDRESS, "during the run", False)
    assert one.commit == git(checkout, "rev-parse", "HEAD") and one.who == "Tess Ter <tess@example.org>"
    assert (one.started, one.finished) == ("2026-05-03T09:20:00.000Z", "2026-05-03T09:20:02.500Z")
    assert set(one.subjects) == {
        "artifacts/tiny/events.parquet",
        "artifacts/tiny/dataset/train.parquet",
        "artifacts/tiny/dataset/deep/users.parquet",
    }
    assert one.inputs.keys() == one.input_sha256.keys() == {"source"}
    assert one.params == {"scenarios.tiny.seed": 0} and "torch" in one.environment


def test_a_second_run_changes_nothing_and_says_nothing(checkout: Path) -> None:
    run(checkout, RAN)
    before = stored(checkout).envelope
    assert run(checkout) == run(checkout, RAN) == []
    assert stored(checkout).envelope == before


def test_what_no_run_has_attested_is_attached_afterwards_and_says_so(checkout: Path) -> None:
    assert len(run(checkout)) == 1
    one = stored(checkout)
    assert (one.attached, one.started, one.environment) == ("afterwards", "", {})


def test_code_that_is_in_no_commit_is_told(checkout: Path) -> None:
    (checkout / "pyproject.toml").write_text("[project]\n")
    run(checkout, RAN)
    assert stored(checkout).dirty is True


def test_notes_and_parameters_do_not_make_it_dirty(checkout: Path) -> None:
    (checkout / "notes.md").write_text("mine\n")
    (checkout / "params.yaml").write_text((checkout / "params.yaml").read_text() + "# mine\n")
    run(checkout, RAN)
    assert stored(checkout).dirty is False


def test_outside_of_git_a_run_is_attested_with_no_commit(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    run(checkout, RAN)
    one = stored(checkout)
    assert (one.commit, one.dirty) == ("unknown", None)


def test_an_output_that_is_not_as_recorded_is_not_attested_and_the_run_does_not_fail(checkout: Path) -> None:
    (checkout / "artifacts/tiny/dataset/train.parquet").write_text("other")
    (line,) = run(checkout, RAN)
    assert line.startswith(f"{ADDRESS} is not attested") and "is not what dvc.lock records" in line
    assert not list((checkout / ".recstill").rglob("*.dsse.json"))
    assert run(checkout) == [], "a stage that did not run now is nobody's news"


def test_code_that_has_changed_since_is_not_attested_afterwards(checkout: Path) -> None:
    lock = (checkout / "dvc.lock").read_text()
    (checkout / "dvc.lock").write_text(lock.replace("path: source", "path: make.py"))
    (checkout / "make.py").write_text("changed")
    key = signing_key(keys_of(checkout))
    made, problems = attest_missing(checkout, SCENARIO, store_of(checkout), key)
    assert made == [] and "make.py is not the file that dvc.lock records" in problems[ADDRESS]


def test_a_store_that_cannot_be_written_is_told_and_fails_no_run(checkout: Path) -> None:
    (checkout / ".recstill").mkdir()
    (checkout / ".recstill/store").write_text("a file where the folder should be")
    (line,) = run(checkout, RAN)
    assert "not attested" in line


def test_a_store_whose_library_breaks_is_told_and_fails_no_run(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise ConnectionResetError("secret")

    monkeypatch.setattr("components.storage.folder_store.FolderStore.put_if_absent", broken)
    assert run(checkout, RAN) == ["the run is not attested (ConnectionResetError)"]


def test_without_a_lock_the_run_is_not_attested(checkout: Path) -> None:
    (checkout / "dvc.lock").unlink()
    (line,) = run(checkout, RAN)
    assert line.startswith("the run is not attested: there is no readable")


def test_all_statements_of_a_run_are_found_in_the_order_of_the_lock(checkout: Path) -> None:
    run(checkout, RAN)
    said: list[str] = []
    statements = statements_of(checkout, SCENARIO, store_of(checkout), said.append)
    assert statements == [stored(checkout)] and said == []


def test_those_that_are_missing_are_made_and_told(checkout: Path) -> None:
    said: list[str] = []
    (one,) = statements_of(checkout, SCENARIO, store_of(checkout), said.append)
    assert one.attached == "afterwards" and said == [f"attested afterwards, not by the run that made it: {ADDRESS}"]
    assert stored(checkout) == one


def test_one_that_nobody_trusted_has_signed_is_replaced(checkout: Path) -> None:
    run(checkout, RAN)
    shutil.rmtree(keys_of(checkout))
    said: list[str] = []
    (one,) = statements_of(checkout, SCENARIO, store_of(checkout), said.append)
    assert one.attached == "afterwards" and "no trusted key has signed" in said[0] and "replaced" in said[0]
    assert one.signed_by == signing_key(keys_of(checkout)).public.id
    assert stored(checkout) == one


def test_a_damaged_one_is_replaced(checkout: Path) -> None:
    run(checkout, RAN)
    where = store_of(checkout).local_file(statement_key(SCENARIO, stored(checkout).entry))
    assert where is not None
    where.write_bytes(where.read_bytes()[:100])
    said: list[str] = []
    (one,) = statements_of(checkout, SCENARIO, store_of(checkout), said.append)
    assert "is damaged" in said[0] and stored(checkout) == one


def test_a_key_that_is_not_trusted_here_attests_nothing(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSTILL_TRUSTED_KEYS", signing_key(tmp_path / "another").public.pem)
    (line,) = run(checkout, RAN)
    assert "is not trusted" in line and not list((checkout / ".recstill").rglob("*.dsse.json"))


def test_a_version_is_not_attested_over_other_bytes(checkout: Path) -> None:
    (checkout / "artifacts/tiny/events.parquet").write_text("other")
    with pytest.raises(IntegrityError, match="cannot be attested"):
        statements_of(checkout, SCENARIO, store_of(checkout), print)


def test_a_worktree_attests_into_the_store_of_its_checkout(checkout: Path) -> None:
    worktree = checkout.parent / "worktree"
    git(checkout, "worktree", "add", "-q", "--detach", str(worktree))
    shutil.copytree(checkout / "artifacts", worktree / "artifacts")
    (checkout / "dvc.lock").replace(worktree / "dvc.lock")
    attest_run(worktree, SCENARIO, [RAN], print)
    assert len(list((checkout / ".recstill/store/provenance").rglob("*.dsse.json"))) == 1
