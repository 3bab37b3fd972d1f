"""A step of a flow as a task of its run, so that it can be seen there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.states import Failed

from components.errors import RecstillError


def as_task(name: str, work: Callable[[], Any]) -> Any:
    """What ``work`` returns; an error of a user is raised as the one that it is, and needs no traceback in the log.

    Args:
        name: Of the task.
        work: What is done.
    """
    errors: list[RecstillError] = []

    @task(name=name, cache_policy=NO_CACHE, persist_result=False)
    def step() -> Any:
        try:
            return work()
        except RecstillError as error:
            errors.append(error)
            return Failed(message=str(error))

    state = step(return_state=True)
    if errors:
        raise errors[0]
    return state.result()


def submitted(
    name: str, work: Callable[[], Any], after: Sequence[PrefectFuture[Any]] = (), run: str | None = None
) -> PrefectFuture[Any]:
    """A step that runs beside others on the flow's task runner; an error of a user ends it with its message.

    Args:
        name: Of the task.
        work: What is done.
        after: Steps that have to end well before.
        run: Name of this run of it; None: that of the task.
    """

    @task(name=name, task_run_name=run or name, cache_policy=NO_CACHE, persist_result=False)
    def step() -> Any:
        try:
            return work()
        except RecstillError as error:
            return Failed(message=str(error))

    return step.submit(return_state=False, wait_for=list(after))
