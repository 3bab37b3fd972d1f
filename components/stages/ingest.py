"""From a source to checked events: events, titles, rejected rows with the reason, and where they came from."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from components.data.ingesting import ingest, summary
from components.data.ingesting_points import point_summary
from components.data.ingesting_samples import ingest_samples
from components.data.ingesting_texts import ingest_texts
from components.data.sample_sources import open_samples
from components.data.sources import open_source
from components.data.subject_key import subject_key
from components.data.text_sources import open_texts
from components.settings.sample_source import SampleSource
from components.settings.sources import SourceSection
from components.settings.text_source import TextSource
from components.stages.workspace import Workspace, run_stage
from components.storage.atomic import new_file, write_json


def work(workspace: Workspace) -> None:
    """Write ``events.parquet``, ``items.parquet``, ``rejected.parquet`` and ``source.json``."""
    union: Any = SourceSection  # No type, as far as mypy knows, but one of several.
    settings: SourceSection = workspace.settings("source", union)
    if isinstance(settings, SampleSource):
        found = ingest_samples(open_samples(settings, workspace.root), settings)
        lines = point_summary(found.record, "samples")
    elif isinstance(settings, TextSource):
        found = ingest_texts(open_texts(settings, workspace.root), settings)
        lines = point_summary(found.record, "texts")
    else:
        key = subject_key(workspace.root / ".recstill" / "keys") if settings.exclude else None
        found = ingest(open_source(settings, workspace.root), settings, datetime.now(UTC), key)
        lines = summary(found.record)
    for name, table in (("events", found.events), ("items", found.items), ("rejected", found.rejected)):
        with new_file(workspace.artifacts / f"{name}.parquet") as temporary:
            table.write_parquet(temporary)
    write_json(workspace.artifacts / "source.json", found.record)
    for line in lines:
        print(line)


if __name__ == "__main__":
    run_stage("ingest", work)
