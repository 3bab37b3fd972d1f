from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from components.errors import StorageError
from components.settings.tune import Choices, Range
from flows.tuning.study import STORAGE_VARIABLE, Study, place_of

SPACE = {
    "student.network.dim": Choices(choices=(8, 16, 32)),
    "student.network.hidden": Choices(choices=([8], [16, 16])),
    "student.optimization.learning_rate": Range(low=0.001, high=0.1, log=True),
    "student.network.blocks": Range(low=1, high=3),
    "pruning.ffn_ratio": Range(low=0.0, high=0.75, step=0.25),
}
OWN = {
    "student.network.dim": 16,
    "student.network.hidden": [16, 16],
    "student.optimization.learning_rate": 0.02,
    "student.network.blocks": 2,
    "pruning.ffn_ratio": 0.5,
}


def study(place: str | Path, name: str = "tiny", epochs: int = 8) -> Study:
    return Study(name, SPACE, place, seed=0, epochs=epochs)


def ended(opened: Study, trial: Any, value: float, state: str = "complete") -> None:
    points = {"int8": {"bytes": 100, "quality": value}}
    opened.end(trial, digest=f"{trial.number:08x}", state=state, points=points, value=value, excesses={"bytes": -0.5})


def test_the_own_recipe_comes_first_and_what_is_drawn_lies_in_the_space(tmp_path: Path) -> None:
    opened = study(tmp_path / "journal.log")
    opened.begin_with(OWN)
    first = opened.next()
    assert opened.recipe_of(first) == OWN
    for _ in range(12):
        trial = opened.next()
        recipe = opened.recipe_of(trial)
        assert recipe == opened.recipe_of(trial), "asked twice, drawn once"
        assert all(SPACE[key].holds(value) for key, value in recipe.items()), recipe
        ended(opened, trial, recipe["student.network.dim"] / 100)
    assert [one.digest for one in opened.tried()] == [f"{number:08x}" for number in range(1, 13)]


def test_a_search_that_was_killed_in_the_middle_of_a_line_goes_on(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    opened = study(journal)
    opened.begin_with(OWN)
    finished, running = opened.next(), opened.next()
    opened.recipe_of(finished)
    recipe = opened.recipe_of(running)
    opened.report(running, 1, 0.5)
    ended(opened, finished, 0.1)
    assert study(journal).abandoned() == [], "the process that runs it lives"
    text = journal.read_text().replace(f":{_process()}", ":999999999-1.00")
    journal.write_text(text + '{"op_code": 7, "trial_id"')
    (tmp_path / "journal.log.lock").touch()
    again = study(journal)
    assert [one.number for one in again.tried()] == [finished.number]
    (resumed,) = again.abandoned()
    assert again.recipe_of(resumed) == recipe
    again.adopt(resumed)
    assert again.report(resumed, 1, 0.5), "an epoch that was reported before is no error"
    ended(again, resumed, 0.2)
    assert [one.number for one in study(journal).tried()] == [finished.number, running.number]
    again.begin_with(OWN)
    assert again.recipe_of(again.next()) != OWN, "it was tried already"


def test_a_search_that_goes_on_does_not_draw_what_it_began_with(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    opened = study(journal)
    trial = opened.next()
    first = opened.recipe_of(trial)
    ended(opened, trial, 0.1)
    again = study(journal)
    assert again.recipe_of(again.next()) != first


def test_a_trial_worse_than_the_median_is_ended_and_not_before_a_quarter_of_it(tmp_path: Path) -> None:
    opened = study(tmp_path / "journal.log")
    for quality in (0.5, 0.6, 0.7, 0.8):
        trial = opened.next()
        opened.recipe_of(trial)
        assert all(opened.report(trial, step, quality) for step in range(1, 9))
        ended(opened, trial, quality)
    bad, good = opened.next(), opened.next()
    assert opened.report(bad, 1, 0.1) and not opened.report(bad, 2, 0.1)
    assert all(opened.report(good, step, 0.9) for step in range(1, 9))
    ended(opened, bad, 0.1, state="pruned")
    assert opened.tried()[-1].steps == {1: 0.1, 2: 0.1} and opened.count() == 5


def test_results_are_kept_in_a_database_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    opened = study(url)
    trial = opened.next()
    recipe = opened.recipe_of(trial)
    ended(opened, trial, 0.3)
    (found,) = study(url).tried()
    assert found.recipe == recipe and found.points["int8"]["quality"] == 0.3 and found.state == "complete"


def test_a_locked_database_is_one_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db?timeout=0.1"
    opened = study(url)
    with sqlite3.connect(tmp_path / "study.db") as holder:
        holder.execute("begin exclusive")
        with pytest.raises(StorageError, match="locked") as refusal:
            opened.next()
    assert STORAGE_VARIABLE in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "nosuch://host/db",
        "postgresql://me:secret@127.0.0.1:9/db",
        "postgresql://me:secret@127.0.0.1:port/db",
        "sqlite:////no/such/folder/db",
        "redis://me:secret@127.0.0.1:9/0",
    ],
)
def test_a_storage_that_cannot_be_opened_is_named_without_its_password(url: str) -> None:
    with pytest.raises(StorageError) as refusal:
        study(url)
    assert url.rpartition("@")[2].partition("?")[0] in str(refusal.value) and "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{not json", "damaged"),
        ('{"a":1}', "no 'op_code'"),
        ('{"op_code": 4, "worker_id": "one"}', "damaged"),
        ('{"op_code": 99, "worker_id": "one"}', "damaged"),
        ("5", "damaged"),
        ("[]", "damaged"),
    ],
)
def test_a_damaged_journal_is_named(tmp_path: Path, line: str, says: str) -> None:
    journal = tmp_path / "journal.log"
    study(journal)
    journal.write_text(f"{line}\n" + journal.read_text())
    with pytest.raises(StorageError, match=says) as refusal:
        study(journal)
    assert str(journal) in str(refusal.value) and "damaged" in str(refusal.value)


def test_the_environment_says_where_a_study_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STORAGE_VARIABLE, raising=False)
    assert place_of(tmp_path, None) == tmp_path / "journal.log"
    monkeypatch.setenv(STORAGE_VARIABLE, "sqlite:///a.db")
    assert place_of(tmp_path, None) == "sqlite:///a.db" and place_of(tmp_path, "sqlite:///b.db") == "sqlite:///b.db"


def _process() -> str:
    from flows.tuning.study import _own_process

    return _own_process()
