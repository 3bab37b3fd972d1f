"""`recstill audit`: every byte of a release, in the store and in DVC's remote, and what it says when one is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from components.errors import RecstillError
from components.provenance.recalls import put_recall
from components.provenance.signing import signing_key
from components.serving.releases import publish
from flows import audit_cli
from flows.audit import page
from flows.auditing.audit_page import html_page
from flows.auditing.exit_status import FOUND
from flows.auditing.reporting import Report, audit_report
from flows.finalizing import FinishedRun, finalize
from flows.promoting import Order, bring_live
from flows.repository import keys_of, store_of
from tests.unit.flows.small_checkout import SCENARIO, VERDICT, git, small_checkout
from tests.unit.serving.conftest import artifacts, content, package  # noqa: F401  # fixtures


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Path:  # noqa: F811
    root = small_checkout(tmp_path_factory.mktemp("registered"), package)
    with pytest.MonkeyPatch.context() as environment:
        for name in ("RECSTILL_STORE", "PREFECT_API_URL", "RECSTILL_SIGNING_KEY", "RECSTILL_TRUSTED_KEYS"):
            environment.delenv(name, raising=False)
        finalize(FinishedRun(root, root, SCENARIO, "0123456789abcdef" * 4, VERDICT), lambda line: None)
    return root


@pytest.fixture
def checkout(registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RECSTILL_STORE", "PREFECT_API_URL", "RECSTILL_SIGNING_KEY", "RECSTILL_TRUSTED_KEYS"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(registered, tmp_path / "checkout", symlinks=True)
    monkeypatch.chdir(tmp_path / "checkout")
    return tmp_path / "checkout"


def audited(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    audit_cli.register(app)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.stdout


def spoil(path: Path) -> None:
    path.chmod(0o644)
    stored = bytearray(path.read_bytes())
    stored[len(stored) // 2] ^= 1
    path.write_bytes(stored)


def test_a_whole_release_is_said_to_be_whole(checkout: Path) -> None:
    status, said = audited()
    assert status == 0 and f"{SCENARIO}@v1" in said and "1 version looked at, 0 not whole" in said


def test_an_empty_store_is_a_finding_only_when_a_tag_says_that_it_was_not_empty(checkout: Path) -> None:
    shutil.rmtree(checkout / ".recstill/store")
    status, said = audited()
    assert status == FOUND and f"releases/{SCENARIO}/v1/attestation.dsse.json" in said
    git(checkout, "tag", "-d", f"{SCENARIO}@v1.0.0")
    assert audited()[0] == 0


def test_one_flipped_bit_of_a_package_is_found(checkout: Path) -> None:
    (model,) = (checkout / ".recstill/store/packages").glob("*/model.onnx")
    spoil(model)
    status, said = audited()
    assert status == FOUND and "model.onnx" in said and "1 not whole" in said


def test_one_flipped_bit_in_the_remote_is_found(checkout: Path) -> None:
    remote = checkout / ".recstill/store/dvc"
    spoil(next(path for path in sorted(remote.rglob("*")) if path.is_file() and path.suffix != ".dir"))
    status, said = audited()
    assert status == FOUND and "corrupt" in said and "artifacts/tiny/" in said


def test_a_file_that_is_gone_from_the_remote_is_found(checkout: Path) -> None:
    remote = checkout / ".recstill/store/dvc"
    next(path for path in sorted(remote.rglob("*")) if path.is_file() and path.suffix != ".dir").unlink()
    status, said = audited()
    assert status == FOUND and "missing" in said


def test_a_release_that_another_key_signed_is_found(checkout: Path) -> None:
    shutil.rmtree(checkout / ".recstill/keys")
    signing_key(checkout / ".recstill/keys")
    status, said = audited()
    assert status == FOUND and f"{SCENARIO}@v1" in said


def test_a_release_of_another_repository_is_looked_at_as_far_as_it_can_be(
    checkout: Path,
    package: Path,  # noqa: F811
) -> None:
    publish(
        store_of(checkout),
        package,
        VERDICT,
        name="elsewhere",
        version=3,
        commit="e" * 40,
        created="2026-01-01T00:00:00Z",
        key=signing_key(keys_of(checkout)),
    )
    found = {version.name: version for version in audit_report(checkout).versions}
    assert found["elsewhere"].whole and "is not in this repository" in found["elsewhere"].findings[0].problem
    assert found[SCENARIO].whole and found[SCENARIO].findings == ()
    assert audited()[0] == 0


def test_a_tagged_version_whose_release_is_gone_is_found(checkout: Path) -> None:
    git(checkout, "tag", "-a", "-m", "forged", f"{SCENARIO}@v2.0.0", "HEAD")
    status, said = audited()
    assert status == FOUND and f"refs/tags/{SCENARIO}@v2.0.0" in said and "2 versions looked at, 1 not whole" in said


def test_the_page_of_a_run_says_of_every_version_how_it_stands(checkout: Path) -> None:
    assert f"| {SCENARIO}@v1 | whole | registered |" in page(audit_report(checkout))
    (model,) = (checkout / ".recstill/store/packages").glob("*/model.onnx")
    spoil(model)
    said = page(audit_report(checkout))
    assert f"| {SCENARIO}@v1 | **not whole** |" in said and "**damage**: corrupt: model.onnx" in said


def test_a_page_that_cannot_be_written_is_told_before_anything_is_read(checkout: Path) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    audit_cli.register(app)
    (checkout / "file").touch()
    for place, said in ((".", "is a folder"), ("file/audit.html", "cannot be written")):
        result = CliRunner().invoke(app, ["audit", "--html", place])
        assert isinstance(result.exception, RecstillError)
        assert said in str(result.exception)


def test_json_is_one_document_with_findings_and_versions(checkout: Path) -> None:
    status, said = audited("--json")
    record = json.loads(said)
    assert status == 0 and record["damage"] == 0 and record["objects"] > 5
    assert [one["name"] for one in record["versions"]] == [SCENARIO] and record["versions"][0]["whole"] is True


def recall(checkout: Path, report: Report) -> None:
    put_recall(
        store_of(checkout), digests=[report.versions[0].lineage["teacher"]], kind="teacher", name="<b>the teacher</b>",
        reason="learned from robots", who="Tess", expected=0, key=signing_key(keys_of(checkout)),
    )  # fmt: skip


def test_the_html_page_is_whole_by_itself_with_findings_first_and_recalls_in_red(checkout: Path) -> None:
    before = html_page(audit_report(checkout))
    assert "Every byte is as it was written" in before and "http" not in before.replace(
        "http://www.w3.org/2000/svg", ""
    )
    (model,) = (checkout / ".recstill/store/packages").glob("*/model.onnx")
    spoil(model)
    recall(checkout, audit_report(checkout))
    target = checkout / "report.html"
    status, _ = audited("--html", str(target))
    after = target.read_text()
    assert status == FOUND
    assert after.index("1 finding of damage") < after.index("model.onnx") < after.index("<h2>Versions</h2>")
    assert "learned from robots" in after and 'class="badge recalled"' in after
    assert "<b>the teacher</b>" not in after and "&lt;b&gt;the teacher" in after
    assert after.count("<svg") == 1 and 'class="box bad"' in after


def test_what_is_live_and_recalled_is_found_though_every_byte_is_right(checkout: Path) -> None:
    bring_live(checkout, Order(SCENARIO, 1, who="Tess", why=""), lambda line: None)
    assert audited()[0] == 0
    recall(checkout, audit_report(checkout))
    status, said = audited()
    assert status == FOUND and "learned from robots" in said and "0 not whole" in said
