"""`recstill verify`: what it looks at, what it says, and how it goes on after an interruption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from components.errors import SettingsError
from components.provenance.signing import signing_key
from components.serving.releases import publish
from components.storage.contract import StoredObject
from components.storage.folder_store import FolderStore
from flows import verify_cli
from flows.auditing.exit_status import FOUND
from flows.auditing.journal import JOURNAL, Journal
from flows.auditing.verifying import verify
from flows.repository import keys_of, store_of
from flows.worktrees import scenario_lock
from tests.unit.flows.auditing.damages import STORE, objects, overwrite
from tests.unit.flows.small_checkout import VERDICT, git


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.callback()(lambda: None)
    verify_cli.register(app)
    result = CliRunner().invoke(app, ["verify", *arguments])
    return result.exit_code, result.stdout


def test_a_whole_checkout_ends_with_status_0_and_says_how_much_was_read(checkout: Path) -> None:
    status, said = run()
    assert status == 0 and "every byte is as it was written" in said and "6 versions" in said


def test_a_flipped_bit_ends_with_status_3_and_is_told_with_the_versions_that_need_it(checkout: Path) -> None:
    file = next(file for file in objects(checkout)["packages"] if file.endswith("model.onnx"))
    content = bytearray((checkout / file).read_bytes())
    content[100] ^= 4
    overwrite(checkout / file, bytes(content))
    status, document = run("--json")
    record = json.loads(document)
    assert status == FOUND and record["damage"] == 1
    (finding,) = record["findings"]
    assert finding["kind"] == "corrupt" and finding["object"] == file.removeprefix(f"{STORE}/")
    assert len(finding["versions"]) == 1 and finding["remedy"]
    status, said = run()
    assert status == FOUND and "model.onnx" in said and "1 damage found" in said


def test_an_object_that_all_versions_share_is_read_once(checkout: Path) -> None:
    everything = verify(checkout)
    listed = objects(checkout)
    files = [file for group in listed.values() for file in group if "/runs/" not in file]
    assert everything.objects <= len(files)
    assert everything.bytes <= sum((checkout / file).stat().st_size for file in files)


def test_only_the_versions_that_are_named_are_looked_at(checkout: Path) -> None:
    assert verify(checkout, ["tiny@v1", "small"]).versions == ("small@v1", "small@v2", "small@v3", "tiny@v1")
    with pytest.raises(SettingsError, match="tiny@v9 is not registered"):
        verify(checkout, ["tiny@v9"])


def test_damage_to_another_version_is_not_told_of_the_one_that_is_named(checkout: Path) -> None:
    (checkout / STORE / "releases/tiny/v2/attestation.dsse.json").unlink()
    assert verify(checkout, ["tiny@v1"]).damaged == []
    assert [one.kind for one in verify(checkout, ["tiny@v2"]).damaged] == ["missing"]


def test_the_order_of_the_findings_is_always_the_same(checkout: Path) -> None:
    for file in objects(checkout)["remote"][::3]:
        overwrite(checkout / file, b"nothing")
    one, other = verify(checkout, workers=1), verify(checkout, workers=8)
    assert len(one.findings) > 5 and one.findings == other.findings


def test_a_release_of_another_repository_is_looked_at_as_far_as_it_can_be(checkout: Path) -> None:
    package = checkout / "artifacts/tiny/package"
    publish(store_of(checkout), package, VERDICT, name="elsewhere", version=3, commit="e" * 40,
            created="2026-01-01T00:00:00Z", key=signing_key(keys_of(checkout)))  # fmt: skip
    found = verify(checkout)
    assert found.damaged == [] and any("not in this repository" in one.problem for one in found.findings)


def test_strangers_among_the_files_of_a_package_or_a_release_are_damage(checkout: Path) -> None:
    package = next((checkout / STORE / "packages").iterdir())
    (package / "extra.bin").write_bytes(b"what is this")
    (checkout / STORE / "releases/tiny/v1/note.txt").write_bytes(b"and this")
    assert sorted(one.kind for one in verify(checkout).damaged) == ["orphan", "orphan"]


def test_without_a_repository_the_store_is_verified_all_the_same(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    found = verify(checkout)
    assert found.objects > 40 and found.damaged == []
    file = next(file for file in objects(checkout)["packages"])
    overwrite(checkout / file, b"{}")
    assert verify(checkout).damaged


def test_an_interrupted_run_goes_on_where_it_was_and_a_whole_one_leaves_nothing(checkout: Path) -> None:
    class Interrupted(BaseException):
        pass

    done = 0

    def begin(objects: int, size: int):
        def advance(size: int, reused: bool) -> None:
            nonlocal done
            done += 1
            if done == 40:
                raise Interrupted

        return advance

    with pytest.raises(Interrupted):
        verify(checkout, workers=1, begin=begin)
    assert (checkout / JOURNAL).is_file()
    # What is damaged meanwhile is read again, since its size or time is another.
    file = objects(checkout)["remote"][0]
    overwrite(checkout / file, b"x")
    second = verify(checkout)
    assert second.reused > 0 and len(second.damaged) == 1
    assert not (checkout / JOURNAL).exists() and verify(checkout).reused == 0


def test_fresh_ignores_what_an_interrupted_run_has_found(checkout: Path) -> None:
    journal = Journal(checkout / JOURNAL)
    journal.add("store", "key", "1", "2", "3")
    journal.keep()
    assert len(Journal(checkout / JOURNAL)) == 1
    assert len(Journal(checkout / JOURNAL, resume=False)) == 0 and not (checkout / JOURNAL).exists()


def test_a_journal_counts_for_a_day_and_a_line_that_was_cut_for_nothing(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(checkout / JOURNAL)
    journal.add("store", "key", "1", "2", "3")
    journal.keep()
    with (checkout / JOURNAL).open("a") as stream:
        stream.write('[17, "store", "ke')
    assert Journal(checkout / JOURNAL).has("store", "key", "1", "2", "3")
    now = time.time()
    monkeypatch.setattr("flows.auditing.journal.time.time", lambda: now + 90_000)
    assert len(Journal(checkout / JOURNAL)) == 0


def test_ctrl_c_ends_the_command_and_the_next_one_says_what_was_reused(checkout: Path) -> None:
    big = checkout / STORE / "dvc/files/md5"
    assert big.is_dir()
    program = (
        "import os, signal, sys\n"
        "from flows.auditing import hashing\n"
        "plain, count = hashing._checked, [0]\n"
        "def slow(*arguments):\n"
        "    count[0] += 1\n"
        "    if count[0] == 60: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return plain(*arguments)\n"
        "hashing._checked = slow\n"
        "sys.argv = ['recstill', 'verify', '--workers', '1']\n"
        "from flows.cli import main\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(verify_cli.__file__).parents[1])}, check=False,
    )  # fmt: skip
    assert ended.returncode in (130, -signal.SIGINT), ended.stderr
    status, document = run("--json")
    assert status == 0 and json.loads(document)["bytes_of_an_interrupted_run"] > 0


def test_a_stage_tag_that_shows_what_no_switch_made_live_is_forged(checkout: Path) -> None:
    tags = [tag for tag in git(checkout, "tag").splitlines() if tag.startswith("tiny#prod#")]
    newest = max(tags, key=lambda tag: int(tag.rpartition("#")[2]))
    text = git(checkout, "for-each-ref", "--format=%(contents)", f"refs/tags/{newest}")
    head = git(checkout, "rev-parse", "tiny@v3.0.0^{commit}")
    assert head != git(checkout, "rev-parse", f"{newest}^{{commit}}")
    git(checkout, "tag", "-f", "-a", "-m", text, newest, head)
    (moved,) = verify(checkout).damaged
    assert (moved.kind, moved.object) == ("forged", f"refs/tags/{newest}")
    git(checkout, "tag", "-d", newest)
    assert verify(checkout).damaged == []
    made = f"tiny#prod#{len(tags) + 5}"
    git(checkout, "tag", "-a", "-m", "by hand", made, head)
    (by_hand,) = verify(checkout).damaged
    assert (by_hand.object, "no deployment made it" in by_hand.problem) == (f"refs/tags/{made}", True)


def test_a_lock_that_is_damaged_in_git_is_a_finding_and_all_else_is_looked_at(checkout: Path) -> None:
    blob = git(checkout, "rev-parse", "tiny@v1.0.0:dvc.lock")
    place = checkout / ".git" / "objects" / blob[:2] / blob[2:]
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    overwrite(place, bytes(content))
    file = next(file for file in objects(checkout)["packages"] if file.endswith("model.onnx"))
    overwrite(checkout / file, b"spoiled")
    commit = git(checkout, "rev-parse", "tiny@v1.0.0^{commit}")
    named = {one.object for one in verify(checkout).damaged}
    assert named >= {commit, file.removeprefix(f"{STORE}/")}


def test_a_registration_that_goes_on_meanwhile_is_no_damage(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = FolderStore.list

    def before(store: FolderStore, prefix: str) -> Iterator[StoredObject]:
        # As it was when the audit began: the third version's files came a moment later.
        return (one for one in listed(store, prefix) if prefix or not one.key.startswith("releases/small/v3/"))

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "list", before)
        assert verify(checkout).damaged == []
    git(checkout, "tag", "-d", "small@v3.0.0")  # attested, and to be tagged within seconds
    with scenario_lock(checkout, "small"):
        assert verify(checkout).damaged == []
    assert [one.object for one in verify(checkout).damaged] == ["refs/tags/small@v3.0.0"]
