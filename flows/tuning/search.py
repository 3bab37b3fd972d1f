"""A search from the inside: what one trial does, what all of them found, and which of it is timed once more, alone."""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from components.errors import RecstillError, SettingsError
from components.evaluation.frontier import (
    Limits,
    Point,
    Reference,
    best_of,
    excess_of,
    point_of,
    preference,
)
from components.settings.reading import PARAMS_FILE
from components.settings.scenario import Scenario
from components.settings.search_space import value_at, with_recipe
from components.storage.atomic import new_file, read_json, write_json
from components.storage.digests import record_digest
from flows.tuning.asking import InterruptedWorkError, ask
from flows.tuning.study import Study, Tried

if TYPE_CHECKING:
    from optuna.trial import Trial

SLACK = 0.5
"""A recipe that costs more than half as much again as the budget allows is not trained; what lies nearer shows what a
little more would buy."""
_DRAWS = 20  # until a recipe comes up that was not tried yet
_FAILURES = 3  # in a row, until something must be wrong with more than a recipe
_TIMED_AGAIN = 5
_DECIDES = {"task", "seed", "student", "trainer", "distillation", "pruning", "quantization", "evaluation"}
_LATENCIES = ("budget.max_p95_ms", "budget.max_latency_ratio")


class Told(Protocol):
    """Who is told how a search goes."""

    def begins(self, number: int, recipe: Mapping[str, Any]) -> None:
        """A trial starts."""

    def epoch(self, number: int, step: int, steps: int, validation: float) -> None:
        """A trial has trained another epoch."""

    def ends(self, tried: Tried, best: Point | None) -> None:
        """A trial has ended; the best point of all so far."""

    def exhausted(self, draws: int) -> None:
        """So many draws came to no recipe that was not tried: no other one is drawn."""


@dataclass(frozen=True)
class Place:
    """Where a search lies.

    Attributes:
        root: The checkout.
        name: Of the scenario.
    """

    root: Path
    name: str

    @property
    def folder(self) -> Path:
        """All that a search of this scenario leaves."""
        return (self.root / ".recstill" / "tune" / self.name).resolve()

    @property
    def artifacts(self) -> Path:
        """Where the stages left what trials read."""
        return (self.root / "artifacts" / self.name).resolve()

    @property
    def lock(self) -> Path:
        """Held while something is timed, by any search of the checkout."""
        return self.folder.parent / "timing.lock"


class Search:
    """Trials of one study, side by side.

    Args:
        place: Where it lies.
        scenario: As params.yaml has it.
        limits: To be met.
        study: Draws recipes and keeps results.
        inputs: Digest of all that a result depends on beside the scenario: teacher, data, labels and code.
        told: Is told how it goes.
        trials: Recipes to try in all; others may add to the same study.
        deadline: On ``time.monotonic``: no trial begins later. None: there is none.
    """

    def __init__(
        self,
        place: Place,
        scenario: Scenario,
        limits: Limits,
        study: Study,
        *,
        inputs: str,
        told: Told,
        trials: int,
        deadline: float | None = None,
    ) -> None:
        self.place, self.scenario, self.limits, self.study = place, scenario, limits, study
        self._inputs, self._told, self._trials, self._deadline = inputs, told, trials, deadline
        self._sharing = threading.Lock()
        self._begun: set[str] = set()
        self._failures = 0
        self._exhausted = False

    @cached_property
    def reference(self) -> Reference:
        """The whole teacher on the validation points; measured when it is asked for the first time."""
        folder = self._reference_folder
        if not (folder / "reference.json").is_file():
            request = {
                "task": self.scenario.task,
                "artifacts": str(self.place.artifacts),
                "folder": str(folder),
            }
            ask("recipe_reference", request, self.place.folder)
        record = read_json(folder / "reference.json")
        return Reference(record["primary"], record["title"], record["quality"], record["fp32_bytes"])

    def reference_record(self) -> dict[str, Any]:
        """The record of the reference, with how many points and users it is of."""
        record: dict[str, Any] = read_json(self._reference_folder / "reference.json")
        return record

    def own_recipe(self) -> dict[str, Any]:
        """What the scenario has now at every parameter of the space."""
        return {key: value_at(self.scenario, key) for key in self.study.space}

    def try_one(self, trial: Trial | None = None) -> None:
        """Try one recipe that was not tried yet, or go on with a trial that was interrupted.

        Raises:
            InterruptedWorkError: The command was ended; the trial goes on at the next start.
            RecstillError: The storage fails, or one trial after the other does.
        """
        tried = {one.digest for one in self.study.tried() if one.counts}
        if self._deadline is not None and time.monotonic() > self._deadline:
            return
        if trial is None and len(tried) >= self._trials:
            return
        for _ in range(_DRAWS):
            if trial is None:
                if self._exhausted:
                    return
                trial = self.study.next()
            else:
                self.study.adopt(trial)
            recipe = self.study.recipe_of(trial)
            try:
                changed = with_recipe(self.scenario, recipe, f"scenarios.{self.place.name}")
            except SettingsError as error:  # each value is valid, and together they are not
                self._pass(trial, "invalid", error.message)
                trial = None
                continue
            digest = record_digest([self._inputs, changed.model_dump(mode="json", include=_DECIDES)])
            with self._sharing:
                known = digest in self._begun | tried
                self._begun.add(digest)
            if not known:
                self._run(trial, recipe, changed, digest)
                return
            self._pass(trial, "duplicate", "it was tried before")
            trial = None
        with self._sharing:
            first, self._exhausted = not self._exhausted, True
        if first:
            self._told.exhausted(_DRAWS)

    def _pass(self, trial: Trial, state: str, note: str) -> None:
        self.study.end(trial, digest="", state=state, points={}, value=None, excesses={}, note=note)

    def points(self) -> list[Point]:
        """Every point of every trial."""
        timings = self._timings()
        return [
            point_of(
                one.number, form, {**figures, **timings.get(figures.get("sha256", ""), {})}, self.reference, self.limits
            )
            for one in self.study.tried()
            for form, figures in one.points.items()
        ]

    def time_the_best(self) -> None:
        """Time the best points once more, while nothing is trained beside them; the new figures count."""
        digests = {one.number: one.digest for one in self.study.tried()}
        known = self._timings()
        files: dict[str, tuple[str, int]] = {}
        for point in self._finalists():
            path = self._folder_of(digests[point.trial]) / "quantized" / point.figures.get("file", "")
            if path.is_file() and point.figures["sha256"] not in known:
                files[point.figures["sha256"]] = (str(path), point.figures["max_length"])
        if not files:
            return
        answer = self.place.folder / "timing.json"
        request = {
            "task": self.scenario.task,
            "artifacts": str(self.place.artifacts),
            "files": files,
            "evaluation": self.scenario.evaluation.model_dump(mode="json"),
            "answer": str(answer),
            "lock": str(self.place.lock),
        }
        ask("recipe_timing", request, self.place.folder)
        write_json(self.place.folder / "timings.json", {**known, **read_json(answer)})

    def _finalists(self) -> list[Point]:
        """What could be chosen: all limits met but for those of the latency, which are missed by half at most."""

        def near(point: Point) -> bool:
            missed = point.verdict.missed
            return point.judged and all(one.setting in _LATENCIES and excess_of(one) <= SLACK for one in missed)

        points = [point for point in self.points() if near(point)]
        by_goal = sorted(points, key=lambda point: preference(point, self.limits)[1:])
        by_all = sorted(points, key=lambda point: preference(point, self.limits))
        return list({point.name: point for point in [*by_goal[:_TIMED_AGAIN], *by_all[:_TIMED_AGAIN]]}.values())

    def _run(self, trial: Trial, recipe: Mapping[str, Any], changed: Scenario, digest: str) -> None:
        started = time.monotonic()
        self._told.begins(trial.number, recipe)
        try:
            state, points, note = self._result(trial, changed, digest, always=recipe == self.own_recipe())
        except InterruptedWorkError:
            raise
        except RecstillError as error:
            state, points, note = "failed", {}, " ".join(str(error).split())
        held = [point_of(trial.number, form, figures, self.reference, self.limits) for form, figures in points.items()]
        best = min(held, key=lambda point: preference(point, self.limits), default=None)
        self.study.end(
            trial,
            digest=digest,
            state=state,
            points=points,
            value=self._value(best),
            excesses={} if best is None else dict(self._excesses(best)),
            note=note,
            seconds=round(time.monotonic() - started, 2),
        )
        tried = next(one for one in self.study.tried() if one.number == trial.number)
        self._told.ends(tried, best_of(self.points(), self.limits))
        with self._sharing:
            self._failures = self._failures + 1 if state == "failed" else 0
            if self._failures >= _FAILURES:
                raise RecstillError(
                    f"{_FAILURES} trials failed one after the other; the last one: {note}",
                    f"Remove the cause, then run `recstill tune {self.place.name}` again, as before: what failed does "
                    "not count as tried.",
                )

    def _result(self, trial: Trial, changed: Scenario, digest: str, *, always: bool) -> tuple[str, dict[str, Any], str]:
        """State, points and note of a trial: from an earlier study, or measured now."""
        folder = self._folder_of(digest)
        result = folder / "result.json"
        if not result.is_file() or not read_json(result)["trained"]:
            result.unlink(missing_ok=True)
            _write_params(folder / PARAMS_FILE, self.place.name, changed)
            request = {
                "scenario": self.place.name,
                "folder": str(folder),
                "artifacts": str(self.place.artifacts),
                "reference": str(self._reference_folder),
                "lock": str(self.place.lock),
                "budget": self.limits.budget.model_dump(mode="json"),
                "gate": self.limits.gate.model_dump(mode="json"),
                "slack": SLACK,
                "always": always,  # what there is now is measured whatever it costs: all else is compared with it
            }
            ask("recipe_trial", request, folder, lambda answer: self._hear(trial, answer, always))
        found = read_json(result)
        if not found["trained"] and found["stopped"] is None:
            return "costly", found["points"], "it is much larger or slower than allowed: not trained"
        if not found["trained"]:
            shutil.rmtree(folder, ignore_errors=True)
            return "pruned", found["points"], f"worse than half of the others after {found['stopped']} epochs"
        return "complete", found["points"], ""

    def _hear(self, trial: Trial, answer: Mapping[str, Any], always: bool) -> bool:
        if "step" not in answer:
            return True
        self._told.epoch(trial.number, answer["step"], answer["steps"], answer["validation"])
        return self.study.report(trial, answer["step"], answer["validation"]) or always

    def _value(self, best: Point | None) -> float | None:
        if best is None or not best.judged:
            return None
        return best.quality if self.limits.limits_a_cost else -math.log10(best.bytes)

    def _excesses(self, best: Point) -> Iterator[tuple[str, float]]:
        for held in best.verdict.requirements:
            if best.judged or (math.isfinite(held.actual) and not held.at_least):
                yield held.setting, excess_of(held)

    @property
    def _reference_folder(self) -> Path:
        return self.place.folder / f"reference-{self._inputs[:12]}"

    def _folder_of(self, digest: str) -> Path:
        return self.place.folder / "trials" / digest[:24]

    def _timings(self) -> dict[str, dict[str, float]]:
        path = self.place.folder / "timings.json"
        return read_json(path) if path.is_file() else {}


def _write_params(path: Path, name: str, scenario: Scenario) -> None:
    document = {"scenarios": {name: scenario.model_dump(mode="json", exclude_unset=True)}}
    with new_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
