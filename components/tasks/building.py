"""From the name in params.yaml to a task."""

from __future__ import annotations

from components.data.dataset import PreparedDataset
from components.errors import SettingsError
from components.tasks.next_item import NextItem


def task_of(name: str, dataset: PreparedDataset, max_length: int) -> NextItem:
    """The task ``name`` over a prepared data set.

    Args:
        name: ``next_item``.
        dataset: What ``prepare`` wrote.
        max_length: Events of a history that the network sees.

    Raises:
        SettingsError: There is no such task.
    """
    if name != "next_item":
        raise SettingsError(f"unknown task {name!r}; known: next_item", "Correct `task` in params.yaml.")
    return NextItem(dataset, max_length)
