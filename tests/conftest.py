"""Fixtures that several test folders share."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from components.data.dataset import PreparedDataset, read_dataset
from components.data.ingesting import ingest
from components.data.preparing import prepare, write_dataset
from components.data.sources import open_source
from components.settings.prepare import PrepareSettings
from components.settings.source import SyntheticSource

# How long one example takes says more about the machine than about the code.
hypothesis_settings.register_profile("recstill", deadline=None)
hypothesis_settings.load_profile("recstill")

# A checkout without this one's configuration would start a process for DVC's analytics at every command.
os.environ.setdefault("DVC_NO_ANALYTICS", "1")


@pytest.fixture(scope="session")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small prepared data set, drawn by the seeded generator and made by the real code. Read only."""
    settings = SyntheticSource(
        kind="synthetic", path="components/data/synthetic.py", users=60, items=48, events_per_user=12
    )
    found = ingest(open_source(settings, Path()), settings, datetime.now(UTC))
    folder = tmp_path_factory.mktemp("prepared") / "dataset"
    write_dataset(folder, prepare(found.events, found.items, PrepareSettings(), found.record["digest"]))
    return folder


@pytest.fixture(scope="session")
def prepared(prepared_folder: Path) -> PreparedDataset:
    """The data set in ``prepared_folder``."""
    return read_dataset(prepared_folder)
