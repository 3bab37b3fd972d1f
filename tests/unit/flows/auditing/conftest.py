from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.flows.auditing.many_versions import VARIABLES, copy_of, many_versions


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
