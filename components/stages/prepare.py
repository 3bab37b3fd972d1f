"""From checked rows to the prepared data set: what the task makes of them, with points, splits and a digest."""

from __future__ import annotations

from typing import Any

from components.settings.preparing import PrepareSection
from components.stages.workspace import Workspace, run_stage
from components.tasks.building import task_class


def work(workspace: Workspace) -> None:
    """Write ``dataset/``."""
    union: Any = PrepareSection
    settings: PrepareSection = workspace.settings("prepare", union)
    task = task_class(workspace.value("task"))
    for line in task.prepare(workspace.artifacts, workspace.artifacts / "dataset", settings):
        print(line)


if __name__ == "__main__":
    run_stage("prepare", work)
