from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.soft_labels.table_teacher import FarStore, TableTeacher


@pytest.fixture
def teacher() -> TableTeacher:
    return TableTeacher()


@pytest.fixture
def store(tmp_path: Path) -> FarStore:
    return FarStore(tmp_path / "store")
