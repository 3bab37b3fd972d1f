"""Which recipes a search tries; the processes that train and measure are played."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from components.errors import RecstillError
from components.settings.tune import Choices, Range, Searched
from components.storage.atomic import write_json
from flows.params import read_params
from flows.tuning import search as searching
from flows.tuning.limits import limits_of
from flows.tuning.progress import SearchProgress
from flows.tuning.search import Place, Search
from flows.tuning.study import Study
from tests.stage_modules import ROOT

SCENARIO = read_params(ROOT).scenarios["synthetic"]
SIZES: dict[str, Searched] = {"student.network.dim": Choices(choices=(8, 16))}
RATES: dict[str, Searched] = {"student.optimization.learning_rate": Range(low=0.001, high=0.1, log=True)}
FIGURES = {"bytes": 9_000, "p95_ms": 0.1, "latency_ratio": 0.1, "quality": 0.1, "retention": 1.0, "sha256": "0"}
REFERENCE = {"primary": "ndcg10", "title": "NDCG@10", "quality": 0.1, "fp32_bytes": 100_000}


class Played:
    """In the place of ``ask``: remembers what was to be trained, and fails as often as it is told."""

    def __init__(self) -> None:
        self.failures, self.trained = 0, 0

    def __call__(self, module: str, request: Mapping[str, Any], folder: Path, hear: Any = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if module == "recipe_reference":
            Path(request["folder"]).mkdir(parents=True, exist_ok=True)
            write_json(Path(request["folder"]) / "reference.json", REFERENCE)
            return
        if self.failures:
            self.failures -= 1
            raise RecstillError("the disk is full", "Make room.")
        self.trained += 1
        write_json(folder / "result.json", {"trained": True, "stopped": None, "points": {"fp32": FIGURES}})


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Played:
    ask = Played()
    monkeypatch.setattr(searching, "ask", ask)
    return ask


def begun(root: Path, space: Mapping[str, Searched], trials: int) -> Search:
    """A call of the command, up to its first trial."""
    study = Study("tiny", space, root / "journal.log", seed=0, epochs=4)
    told = SearchProgress(trials, study.count(), 1, own={}, title=lambda: "NDCG@10")
    limits = limits_of(SCENARIO, "20kB", None, "0.5").limits
    search = Search(Place(root, "synthetic"), SCENARIO, limits, study, inputs="0" * 64, told=told, trials=trials)
    study.begin_with(search.own_recipe())
    return search


def test_what_failed_does_not_count_and_is_tried_again_by_the_next_call(tmp_path: Path, played: Played) -> None:
    played.failures = 3
    search = begun(tmp_path, RATES, 3)
    with pytest.raises(RecstillError, match="3 trials failed one after the other") as failure:
        for _ in range(3):
            search.try_one()
    assert "the disk is full" in failure.value.message and "`recstill tune synthetic`" in failure.value.remedy

    again = begun(tmp_path, RATES, 3)
    assert again.study.count() == 0 and played.trained == 0
    for _ in range(3):
        again.try_one()
    done = [one for one in again.study.tried() if one.counts]
    assert played.trained == again.study.count() == len(done) == 3
    assert done[0].recipe == again.own_recipe(), "which all others are compared with"
    again.try_one()
    assert played.trained == 3, "as many as were asked for"


def test_a_recipe_that_failed_is_no_duplicate_later_and_within_a_call_it_is(tmp_path: Path, played: Played) -> None:
    played.failures = 1
    search = begun(tmp_path, SIZES, 9)
    for _ in range(9):
        search.try_one()
    assert played.trained == 1 and search.study.count() == 1
    again = begun(tmp_path, SIZES, 9)
    for _ in range(9):
        again.try_one()
    assert played.trained == again.study.count() == 2


def test_a_space_without_a_further_recipe_ends_the_search_and_is_told_once(
    tmp_path: Path, played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    search = begun(tmp_path, SIZES, 30)
    for _ in range(30):
        search.try_one()
    drawn = len(search.study.tried())
    assert played.trained == 2 and 22 <= drawn <= 2 + 2 * 20
    said = capsys.readouterr().out
    assert said.count("no further one") == 1 and "tune.space" in said
    begun(tmp_path, SIZES, 30).try_one()
    assert len(search.study.tried()) == drawn + 20
