from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.benchmarks.audit.history import History, build
from tests.unit.flows.auditing.many_versions import VARIABLES, copy_of, many_versions

VERSIONS = 8


@pytest.fixture(scope="session")
def registered_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions of two models. Read only."""
    return many_versions(tmp_path_factory.mktemp("registered"))


@pytest.fixture
def checkout(registered_checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    copy = copy_of(registered_checkout, tmp_path / "checkout")
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> History:
    """Four versions of each of two models, every one warm-started from the one before."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RECSTILL_STORE", "RECSTILL_SIGNING_KEY", "RECSTILL_TRUSTED_KEYS"):
            patch.delenv(name, raising=False)
        return build(tmp_path_factory.mktemp("history"), VERSIONS)


@pytest.fixture
def history(built: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> History:
    """A copy that a test may damage; the current folder is its checkout."""
    for name in ("RECSTILL_STORE", "RECSTILL_SIGNING_KEY", "RECSTILL_TRUSTED_KEYS"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(built.root, tmp_path / "checkout")
    monkeypatch.chdir(tmp_path / "checkout")
    return History(tmp_path / "checkout", built.versions, built.key)
