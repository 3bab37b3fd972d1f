"""Trials as tasks of one Prefect run, with a server of its own: what one of them raises is raised by the run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prefect.testing.utilities import prefect_test_harness

from components.errors import RecstillError
from flows.tune import run_trials
from flows.tuning.asking import InterruptedWorkError


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


def run(*work: Callable[[], None], workers: int = 1) -> None:
    run_trials("tiny", cast(Any, SimpleNamespace(reference="measured")), list(work), workers)


def test_a_defect_of_a_trial_is_raised_when_those_at_work_have_ended_and_no_other_begins() -> None:
    done: list[str] = []
    failed = threading.Event()

    def defective() -> None:
        failed.set()
        raise ZeroDivisionError("a defect")

    def beside() -> None:
        assert failed.wait(60)
        done.append("beside")

    with pytest.raises(ZeroDivisionError, match="a defect"):
        run(beside, defective, *[lambda: done.append("after")] * 3, workers=2)
    assert done == ["beside"]


def test_of_several_errors_the_one_that_says_most_is_raised() -> None:
    both = threading.Barrier(2)

    def together(error: Exception) -> Callable[[], None]:
        def one() -> None:
            both.wait(60)
            raise error

        return one

    for first, second in (
        (InterruptedWorkError("interrupted"), RecstillError("storage")),
        (RecstillError("storage"), KeyError("defect")),
    ):
        with pytest.raises(type(second)) as found:
            run(together(first), together(second), workers=2)
        assert found.value is second


def test_without_its_reference_no_trial_begins_and_the_cause_is_told() -> None:
    class Broken:
        @property
        def reference(self) -> None:
            raise TypeError("no reference")

    done: list[str] = []
    with pytest.raises(TypeError, match="no reference"):
        run_trials("tiny", cast(Any, Broken()), [lambda: done.append("trial")], 1)
    assert not done
