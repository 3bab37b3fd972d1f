"""From a source to checked events: events, titles, rejected rows with the reason, and where they came from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from components.data.ingesting import ingest, summary
from components.data.sources import open_source
from components.data.subject_key import subject_key
from components.settings.source import SourceSettings
from components.stages.workspace import Workspace, run_stage
from components.storage.atomic import new_file, write_json


def work(workspace: Workspace) -> None:
    """Write ``events.parquet``, ``items.parquet``, ``rejected.parquet`` and ``source.json``."""
    union: Any = SourceSettings  # No type, as far as mypy knows, but one of three.
    settings: SourceSettings = workspace.settings("source", union)
    key = subject_key(workspace.root / ".recstill" / "keys") if settings.exclude else None
    found = ingest(open_source(settings, workspace.root), settings, datetime.now(UTC), key)
    for name, table in (("events", found.events), ("items", found.items), ("rejected", found.rejected)):
        with new_file(workspace.artifacts / f"{name}.parquet") as temporary:
            table.write_parquet(temporary)
    write_json(workspace.artifacts / "source.json", found.record)
    for line in summary(found.record):
        print(line)


if __name__ == "__main__":
    run_stage("ingest", work)
