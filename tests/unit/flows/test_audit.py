"""`recstill audit`: every byte of a release, in the store and in DVC's remote, and what it says when one is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from components.provenance.signing import signing_key
from components.serving.releases import publish
from flows import audit_cli
from flows.audit import survey
from flows.finalizing import FinishedRun, finalize
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


def audited() -> tuple[int, str]:
    app = typer.Typer()
    audit_cli.register(app)
    result = CliRunner().invoke(app, [])
    return result.exit_code, result.output


def spoil(path: Path) -> None:
    path.chmod(0o644)
    stored = bytearray(path.read_bytes())
    stored[len(stored) // 2] ^= 1
    path.write_bytes(stored)


def test_a_whole_release_is_said_to_be_whole(checkout: Path) -> None:
    status, said = audited()
    assert status == 0 and f"{SCENARIO}@v1: whole" in said and "1 releases looked at, 0 not whole" in said


def test_an_empty_store_is_no_finding(checkout: Path) -> None:
    shutil.rmtree(checkout / ".recstill/store")
    assert audited()[0] == 0


def test_one_flipped_bit_of_a_package_is_found(checkout: Path) -> None:
    (model,) = (checkout / ".recstill/store/packages").glob("*/model.onnx")
    spoil(model)
    status, said = audited()
    assert status == 1 and "model.onnx" in said and "1 not whole" in said


def test_one_flipped_bit_in_the_remote_is_found(checkout: Path) -> None:
    remote = checkout / ".recstill/store/dvc"
    spoil(next(path for path in sorted(remote.rglob("*")) if path.is_file() and path.suffix != ".dir"))
    status, said = audited()
    assert status == 1 and "damaged" in said and "artifacts/tiny/" in said


def test_a_file_that_is_gone_from_the_remote_is_found(checkout: Path) -> None:
    remote = checkout / ".recstill/store/dvc"
    next(path for path in sorted(remote.rglob("*")) if path.is_file() and path.suffix != ".dir").unlink()
    status, said = audited()
    assert status == 1 and "missing" in said


def test_a_release_that_another_key_signed_is_found(checkout: Path) -> None:
    shutil.rmtree(checkout / ".recstill/keys")
    signing_key(checkout / ".recstill/keys")
    status, said = audited()
    assert status == 1 and f"{SCENARIO}@v1" in said


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
    found = {finding.name: finding for finding in survey(checkout)}
    assert found["elsewhere"].problems == () and "is not in this repository" in found["elsewhere"].note
    assert found[SCENARIO].problems == () and found[SCENARIO].note == ""
    assert audited()[0] == 0


def test_a_tagged_version_whose_release_is_gone_is_found(checkout: Path) -> None:
    git(checkout, "tag", "-a", "-m", "forged", f"{SCENARIO}@v2.0.0", "HEAD")
    status, said = audited()
    assert status == 1 and f"{SCENARIO}@v2: " in said and f"{SCENARIO}@v1: whole" in said
