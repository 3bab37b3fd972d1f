"""From checked events to the prepared data set: k-core, vocabulary, order, split, prediction points, digest."""

from __future__ import annotations

from components.data.events import read_ingested
from components.data.preparing import prepare, summary, write_dataset
from components.settings.prepare import PrepareSettings
from components.stages.workspace import Workspace, run_stage


def work(workspace: Workspace) -> None:
    """Write ``dataset/``."""
    settings = workspace.settings("prepare", PrepareSettings)
    events, items, source_digest = read_ingested(workspace.artifacts)
    prepared = prepare(events, items, settings, source_digest)
    write_dataset(workspace.artifacts / "dataset", prepared)
    for line in summary(prepared.record):
        print(line)


if __name__ == "__main__":
    run_stage("prepare", work)
