"""Names of flow runs: what they are about and when they began, so that a list of runs can be read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime


def dated(parameter: str) -> Callable[[], str]:
    """For ``@flow(flow_run_name=...)``: the value of one of the flow's parameters, and the minute in UTC.

    ``movielens 2026-03-01 03:00``
    """

    def name() -> str:
        from prefect.runtime import flow_run

        return f"{flow_run.parameters.get(parameter)} {datetime.now(UTC):%Y-%m-%d %H:%M}"

    return name
