"""The work of the stage ``soft_labels`` as a job for workers of other processes and machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.settings.soft_labels import SoftLabelSettings
from components.settings.training import TrainerSettings
from components.stages.workspace import Workspace
from components.storage.object_store import open_store

if TYPE_CHECKING:
    from components.soft_labels.job import PostedJob

STAGE = "soft_labels"
"""The stage whose work this is."""


def post_stage(workspace: Workspace, *, elsewhere: bool) -> PostedJob:
    """Put the stage's work into the store, with what the stage itself would read.

    Args:
        workspace: Where ``prepare`` and ``train_teacher`` have run.
        elsewhere: Whether workers may be on other machines.

    Raises:
        DataError: An input is missing, or there is no point to score.
        IntegrityError: An input is damaged.
        SettingsError: A section of params.yaml is wrong.
        StorageError: The store cannot be written.
    """
    from components.soft_labels.job import post_job

    return post_job(
        open_store(),
        workspace.artifacts / "dataset",
        workspace.artifacts / "teacher",
        task=workspace.value("task"),
        settings=workspace.settings("soft_labels", SoftLabelSettings),
        accelerator=workspace.settings("trainer", TrainerSettings).accelerator,
        elsewhere=elsewhere,
    )
