"""From the name in params.yaml to a task; the one list of all tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import SettingsError

if TYPE_CHECKING:
    from components.tasks.answering import Answering
    from components.tasks.contract import Task


# A task is imported when it is asked for: a package is served without torch, a history is learned without the others.
def _next_item() -> type[Task]:
    from components.tasks.next_item import NextItem

    return NextItem


def _recommending() -> type[Answering]:
    from components.tasks.recommending import Recommending

    return Recommending


def _binary() -> type[Task]:
    from components.tasks.binary import Binary

    return Binary


def _image() -> type[Task]:
    from components.tasks.image import Image

    return Image


def _predicting() -> type[Answering]:
    from components.tasks.predicting import Predicting

    return Predicting


def _click() -> type[Task]:
    from components.tasks.click import Click

    return Click


def _telling() -> type[Answering]:
    from components.tasks.telling import Telling

    return Telling


def _text() -> type[Task]:
    from components.tasks.text import Text

    return Text


def _classifying() -> type[Answering]:
    from components.tasks.classifying import Classifying

    return Classifying


def _top_n() -> type[Task]:
    from components.tasks.top_n import TopN

    return TopN


TASKS: dict[str, tuple[Callable[[], type[Task]], Callable[[], type[Answering]]]] = {
    "next_item": (_next_item, _recommending),
    "binary": (_binary, _predicting),
    "image": (_image, _predicting),
    "click": (_click, _telling),
    "text": (_text, _classifying),
    "top_n": (_top_n, _recommending),
}
"""Each task, and how its packages are asked."""


def task_names() -> list[str]:
    """Every task."""
    return list(TASKS)


def task_class(name: str) -> type[Task]:
    """The task of this name.

    Raises:
        SettingsError: There is none.
    """
    return _known(name)[0]()


def task_of(name: str, dataset: Any, max_length: int = 0) -> Any:
    """The task ``name`` over a prepared data set, a :class:`components.tasks.contract.Task`.

    Args:
        name: As it stands in params.yaml.
        dataset: What ``task_class(name).read`` gave.
        max_length: Events of a history that the network sees; 0 where there are no histories.

    Raises:
        SettingsError: There is no such task.
    """
    return task_class(name)(dataset, max_length)


def open_task(name: str, folder: Path, max_length: int = 0) -> Task:
    """The task ``name`` over the prepared data set in ``folder``.

    Raises:
        DataError: A file is missing.
        IntegrityError: The data set is damaged.
        SettingsError: There is no such task.
    """
    kind = task_class(name)
    return kind(kind.read(folder), max_length)


def answering_of(name: str) -> type[Answering]:
    """How packages of the task ``name`` are asked.

    Raises:
        SettingsError: There is no such task.
    """
    return _known(name)[1]()


def ways_of_answering() -> list[type[Answering]]:
    """All of them, each once, in a fixed order."""
    return list(dict.fromkeys(found() for _, found in TASKS.values()))


def _known(name: str) -> tuple[Callable[[], type[Task]], Callable[[], type[Answering]]]:
    if name not in TASKS:
        raise SettingsError(f"unknown task {name!r}; known: {', '.join(TASKS)}", "Correct `task` in params.yaml.")
    return TASKS[name]
