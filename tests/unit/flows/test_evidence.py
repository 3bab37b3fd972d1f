"""The README of a folder of evidence is followed with sha256sum, openssl and git: a change in any place stops it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from components.errors import IntegrityError, SettingsError, StorageError
from components.provenance.recalls import put_recall
from components.provenance.signing import sign, signing_key, trusted_keys
from components.provenance.stage_statement import PAYLOAD_TYPE, payload_of
from components.serving.pointer import switch
from components.serving.releases import read_release
from flows import evidence_cli
from flows.auditing.evidence import Evidence, write_evidence
from flows.finalizing import FinishedRun, finalize
from flows.repository import keys_of, store_of
from tests.unit.flows.small_checkout import SCENARIO, VERDICT, git, small_checkout
from tests.unit.serving.conftest import artifacts, content, package  # noqa: F401  # fixtures


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Path:  # noqa: F811
    """A version that was made live twice, and a recall of something else."""
    root = small_checkout(tmp_path_factory.mktemp("registered"), package)
    with pytest.MonkeyPatch.context() as environment:
        for name in ("RECSTILL_STORE", "PREFECT_API_URL", "RECSTILL_SIGNING_KEY", "RECSTILL_TRUSTED_KEYS"):
            environment.delenv(name, raising=False)
        finalize(FinishedRun(root, root, SCENARIO, "0123456789abcdef" * 4, VERDICT), lambda line: None)
        key, store = signing_key(keys_of(root)), store_of(root)
        release = read_release(store, SCENARIO, 1, [key.public])
        for number in range(2):
            switch(
                store, SCENARIO, release, expected=number, kind="deploy", who="t", why="", keys=[key.public], key=key
            )
        put_recall(
            store, digests=["9" * 64], kind="data set", name="other", reason="bad", who="tess", expected=0, key=key
        )
    return root


@pytest.fixture
def checkout(registered: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RECSTILL_STORE", "PREFECT_API_URL", "RECSTILL_SIGNING_KEY", "RECSTILL_TRUSTED_KEYS"):
        monkeypatch.delenv(name, raising=False)
    return registered


@pytest.fixture
def evidence(checkout: Path, tmp_path: Path) -> Evidence:
    return write_evidence(checkout, SCENARIO, 1, tmp_path / "evidence")


def blocks(folder: Path, language: str) -> list[str]:
    text = (folder / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def follow(folder: Path) -> subprocess.CompletedProcess[str]:
    """Do what the README says, by the one command that it gives."""
    (command,) = (line for block in blocks(folder, "console") for line in block.splitlines() if line.startswith("$ "))
    # Far from any checkout and key: PATH and a home for git are all that is there.
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder.parent)}
    return subprocess.run(
        command.removeprefix("$ "), shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def sum_again(folder: Path) -> None:
    """What somebody does who changes a file and hides it."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    names.remove("SHA256SUMS")
    listed = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, text=True, check=True).stdout
    (folder / "SHA256SUMS").write_text(listed)


def flip(path: Path, position: int) -> None:
    stored = bytearray(path.read_bytes())
    stored[position] ^= 1
    path.write_bytes(stored)


def test_the_readme_is_followed_to_its_end(evidence: Evidence) -> None:
    done = follow(evidence.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "all is well"
    for words in ("tiny@v1 is signed", "the 9 files are those", "the 1 statements are signed", "switches: every entry"):
        assert any(words in line for line in lines), lines
    assert "recalls: every entry is signed and follows the one before it" in lines
    assert evidence.problems == [] and evidence.recalled == []


def test_the_tools_of_the_standards_take_it(evidence: Evidence) -> None:
    scripts = blocks(evidence.folder, "python")
    assert len(scripts) == 2
    for script in scripts:
        command = [sys.executable, "-c", script]
        done = subprocess.run(command, cwd=evidence.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


FILES = [
    *("release/model.onnx", "release/gate.json", "release/bom.cdx.json", "release/provenance.intoto.jsonl"),
    *("release/attestation.dsse.json", "record/dvc.lock", "record/params.yaml", "record/commit", "record/tree.txt"),
    *("switches/00000001.dsse.json", "switches/00000002.dsse.json", "recalls/00000001.dsse.json"),
]


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_byte_is_noticed_even_when_the_sums_are_made_anew(evidence: Evidence, file: str) -> None:
    path = evidence.folder / file
    # Of an envelope a digit of its payload; white space of one may be any.
    envelope = file.endswith((".dsse.json", ".jsonl"))
    flip(path, path.read_bytes().index(b'"payload":') + 40 if envelope else path.stat().st_size // 2)
    done = follow(evidence.folder)
    assert done.returncode != 0 and "NOT RIGHT: a file differs from SHA256SUMS" in done.stdout
    sum_again(evidence.folder)
    done = follow(evidence.folder)
    assert done.returncode != 0 and "all is well" not in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("change", ["added", "lost"])
def test_a_file_more_or_less_is_noticed(evidence: Evidence, change: str) -> None:
    if change == "added":
        (evidence.folder / "release" / "more.bin").write_bytes(b"more")
    else:
        (evidence.folder / "release" / "model.onnx").unlink()
    done = follow(evidence.folder)
    assert done.returncode != 0 and "NOT RIGHT" in done.stdout


def test_another_key_in_the_place_of_the_signer_is_noticed(evidence: Evidence, tmp_path: Path) -> None:
    (path,) = (evidence.folder / "keys").iterdir()
    path.write_text(signing_key(tmp_path / "other").public.pem)
    sum_again(evidence.folder)
    assert "NOT RIGHT: the signature of release/attestation.dsse.json" in follow(evidence.folder).stdout


def test_a_log_whose_entries_changed_places_is_noticed(evidence: Evidence) -> None:
    first, second = (evidence.folder / "switches" / f"0000000{number}.dsse.json" for number in (1, 2))
    stored = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(stored)
    sum_again(evidence.folder)
    assert "does not follow the one before it" in follow(evidence.folder).stdout


def test_a_statement_of_another_package_is_noticed(evidence: Evidence, checkout: Path) -> None:
    """Signed by the right key, attested by nobody: the attestation does not list such a bundle."""
    path = evidence.folder / "release" / "provenance.intoto.jsonl"
    payload = payload_of(path.read_bytes())
    payload["subject"][0]["digest"]["sha256"] = "9" * 64
    path.write_bytes(sign(json.dumps(payload).encode(), PAYLOAD_TYPE, signing_key(keys_of(checkout))))
    sum_again(evidence.folder)
    assert "NOT RIGHT: a file is not as attested" in follow(evidence.folder).stdout


def test_the_folder_holds_what_the_commit_holds(evidence: Evidence, checkout: Path) -> None:
    commit = evidence.release.commit
    assert (evidence.folder / "record/dvc.lock").read_text().strip() == git(checkout, "show", f"{commit}:dvc.lock")
    (key,) = (evidence.folder / "keys").iterdir()
    assert key.name == f"{evidence.release.signed_by}.pem"


def test_it_is_written_again_over_older_evidence_and_over_nothing_else(checkout: Path, tmp_path: Path) -> None:
    write_evidence(checkout, SCENARIO, None, tmp_path / "evidence")
    assert write_evidence(checkout, SCENARIO, 1, tmp_path / "evidence").release.version == 1
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.md").write_text("mine")
    with pytest.raises(SettingsError, match="holds something else than evidence"):
        write_evidence(checkout, SCENARIO, 1, mine)
    assert (mine / "notes.md").read_text() == "mine"


def test_a_release_with_a_damaged_byte_gives_no_evidence(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(checkout, tmp_path / "copy", symlinks=True)
    copy = tmp_path / "copy"
    release = read_release(store_of(copy), SCENARIO, 1, trusted_keys(keys_of(copy)))
    path = store_of(copy).local_file(release.key("bom.cdx.json"))
    assert path is not None
    path.chmod(0o644)
    flip(path, 5)
    with pytest.raises(IntegrityError):
        write_evidence(copy, SCENARIO, 1, tmp_path / "evidence")
    assert not (tmp_path / "evidence").exists()


def test_a_version_that_is_not_there_is_told(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        write_evidence(checkout, SCENARIO, 7, tmp_path / "evidence")
    with pytest.raises(StorageError, match="no release of other"):
        write_evidence(checkout, "other", None, tmp_path / "evidence")


def command(checkout: Path, *arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    evidence_cli.register(app)
    with pytest.MonkeyPatch.context() as place:
        place.chdir(checkout)
        result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_the_command_tells_in_json_and_by_its_exit_status(checkout: Path, tmp_path: Path) -> None:
    status, output = command(checkout, "tiny@v1", "--out", str(tmp_path / "evidence"), "--json")
    document = json.loads(output)
    assert status == 0 and document["version"] == "tiny@v1" and document["problems"] == []
    assert {"README.md", "release/model.onnx", "record/dvc.lock"} <= set(document["files"])


def test_a_recalled_version_says_so_in_its_evidence(checkout: Path, tmp_path: Path) -> None:
    shutil.copytree(checkout, tmp_path / "copy", symlinks=True)
    copy = tmp_path / "copy"
    release = read_release(store_of(copy), SCENARIO, 1, trusted_keys(keys_of(copy)))
    put_recall(
        store_of(copy),
        digests=[release.lineage["teacher"]],
        kind="teacher",
        name="tiny teacher",
        reason="trained on the wrong year",
        who="tess",
        expected=1,
        key=signing_key(keys_of(copy)),
    )
    status, output = command(copy, "tiny@v1", "--out", str(tmp_path / "evidence"))
    assert status == 3 and "trained on the wrong year" in output
    assert "trained on the wrong year" in (tmp_path / "evidence/README.md").read_text()
    assert follow(tmp_path / "evidence").returncode == 0
