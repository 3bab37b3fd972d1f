from __future__ import annotations

import pytest

from components.errors import SettingsError
from components.settings.threads import cores, scoring_workers, threads_per_network


def test_one_thread_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECSTILL_THREADS", raising=False)
    assert threads_per_network() == 1
    monkeypatch.setenv("RECSTILL_THREADS", "3")
    assert threads_per_network() == 3


@pytest.mark.parametrize("value", ["many", "0", "-1", ""])
def test_another_word_than_a_positive_number_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("RECSTILL_THREADS", value)
    with pytest.raises(SettingsError, match="RECSTILL_THREADS"):
        threads_per_network()


def test_as_many_parts_at_once_as_there_are_cores_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RECSTILL_WORKERS", raising=False)
    assert scoring_workers() == cores()
    assert scoring_workers(default=1) == 1
    monkeypatch.setenv("RECSTILL_WORKERS", "5")
    assert scoring_workers(default=1) == 5
    monkeypatch.setenv("RECSTILL_WORKERS", "all")
    with pytest.raises(SettingsError, match="RECSTILL_WORKERS='all' is not a number of workers"):
        scoring_workers()
