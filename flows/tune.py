"""Compress to a budget: recipes of one scenario tried side by side over the one cache of soft labels.

What the teacher is and what its labels are was decided by the graph, which is brought up to date first. A trial is a
Prefect task; Optuna draws its recipe, sees its epochs and keeps its result: a search that is interrupted goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from components.errors import RecstillError, SettingsError
from components.settings.scenario import Scenario
from components.settings.search_space import check_forms, space_of, value_at
from components.settings.threads import cores, threads_per_network
from components.storage.digests import record_digest
from flows.labelling import build
from flows.params import read_params
from flows.running import prefer_quiet_prefect, run_flow
from flows.tuning.asking import ENDING, InterruptedWorkError
from flows.tuning.limits import Asked
from flows.tuning.outcome import Outcome
from flows.tuning.page import write_report
from flows.tuning.progress import SearchProgress
from flows.tuning.search import Place, Search
from flows.tuning.study import Study, place_of

_VERSIONS = ("torch", "onnxruntime", "pytorch-lightning")


@dataclass(frozen=True)
class Budgeted:
    """How much may be tried.

    Attributes:
        trials: Recipes in all, with those of earlier runs of the same search.
        workers: Trials at once; None: as many as there are cores, one on an accelerator.
        seconds: After which no trial begins any more; None: there is no such time.
        storage: Database URL of the study; None: what the environment says, or else a journal file.
    """

    trials: int
    workers: int | None = None
    seconds: float | None = None
    storage: str | None = None


def tune(root: Path, name: str, asked: Asked, budgeted: Budgeted, say: Callable[[str], None]) -> tuple[Outcome, Path]:
    """Search, and write the report.

    Args:
        root: The checkout, which has to be the current folder.
        name: A scenario of params.yaml.
        asked: Limits to be met.
        budgeted: How much may be tried.
        say: Is told what happens before the trials.

    Returns:
        What was found, and the page that shows it.

    Raises:
        RecstillError: A stage fails, the storage cannot be used, or nothing at all could be tried.
    """
    scenario = scenario_of(root, name)
    _require_one_device(scenario, name)
    check_forms(scenario, f"scenarios.{name}")
    built = build(root, name)
    say(f"soft labels of {name}: {built}")
    place = Place(root, name)
    inputs = record_digest([built.cache_id, _code(), [version(library) for library in _VERSIONS]])
    space = space_of(scenario)
    identity = [
        inputs,
        scenario.model_dump(mode="json", exclude={"tune", "retraining", "budget", "gate"}),
        {key: searched.model_dump(mode="json") for key, searched in space.items()},
        [asked.limits.budget.model_dump(), asked.limits.gate.model_dump()],
    ]
    epochs = scenario.student.optimization.max_epochs + scenario.pruning.optimization.max_epochs
    with _only_one(place.folder / "lock", name):
        study = Study(
            f"{name}-{record_digest(identity)[:12]}",
            space,
            place_of(place.folder, budgeted.storage),
            seed=scenario.seed,
            epochs=epochs,
        )
        say(f"study {study.name} in {study.place}: {len(space)} parameters, {study.count()} trials so far")
        return _searched(place, scenario, asked, budgeted, study=study, inputs=inputs)


def scenario_of(root: Path, name: str) -> Scenario:
    """A scenario of params.yaml.

    Raises:
        SettingsError: There is none of that name, or params.yaml is wrong.
    """
    return read_params(root).scenario(name)


def _searched(
    place: Place,
    scenario: Scenario,
    asked: Asked,
    budgeted: Budgeted,
    *,
    study: Study,
    inputs: str,
) -> tuple[Outcome, Path]:
    workers = budgeted.workers or _default_workers(scenario)
    deadline = None if budgeted.seconds is None else time.monotonic() + budgeted.seconds
    own = {key: value_at(scenario, key) for key in study.space}
    progress = SearchProgress(budgeted.trials, study.count(), workers, own=own, title=lambda: search.reference.title)
    search = Search(
        place, scenario, asked.limits, study, inputs=inputs, told=progress, trials=budgeted.trials, deadline=deadline
    )
    study.begin_with(own)
    resumed = study.abandoned()
    left = max(0, budgeted.trials - study.count() - len(resumed))
    work: list[Callable[[], None]] = [partial(search.try_one, trial) for trial in resumed]
    work += [search.try_one] * left
    with progress:
        if work:
            run_trials(place.name, search, work, workers)
        search.reference  # noqa: B018 - a search that was done before may lie on another machine
        search.time_the_best()
    outcome = Outcome(
        name=place.name,
        scenario=scenario,
        asked=asked,
        reference=search.reference,
        record=search.reference_record(),
        points=search.points(),
        tried=study.tried(),
        own=next((one.number for one in study.tried() if one.counts and one.recipe == own), None),
        place=study.place,
    )
    report = place.folder / "report"
    write_report(report, outcome)
    if not outcome.points:
        notes = [one.note for one in outcome.tried if one.note]
        raise RecstillError(
            f"no trial of {place.name} could be measured{f': {notes[-1]}' if notes else ''}",
            f"Correct what it says, or give the search more time (--max-time); then run `recstill tune {place.name}` "
            "again, as before: what failed does not count as tried.",
        )
    return outcome, report / "index.html"


def run_trials(name: str, search: Search, work: list[Callable[[], None]], workers: int) -> None:
    """Trials as tasks of one run, ``workers`` at a time, after the reference that they are held against.

    Raises:
        RecstillError: The storage fails, or one trial after the other does.
        Exception: Whatever else a trial raised, which is a defect: once those at work have ended.
    """
    prefer_quiet_prefect()
    from prefect import flow
    from prefect.task_runners import ThreadPoolTaskRunner

    from flows.run_names import dated
    from flows.steps import submitted

    ended: list[Exception] = []

    def guarded(work: Callable[[], object]) -> None:
        if ended:
            return
        try:
            work()
        except Exception as error:  # of whatever kind: no other trial begins, and it is raised when all have ended
            ended.append(error)
            raise

    @flow(
        name="tune",
        flow_run_name=dated("scenario"),
        task_runner=ThreadPoolTaskRunner(max_workers=workers),  # type: ignore[arg-type]
        persist_result=False,
    )
    def trials(scenario: str, count: int) -> None:
        reference = submitted("reference", partial(guarded, lambda: search.reference))
        futures = [
            submitted("trial", partial(guarded, one), after=[reference], run=f"trial {place} of {count}")
            for place, one in enumerate(work, start=1)
        ]
        for future in (reference, *futures):
            future.wait()
            if not ended and (future.state.is_failed() or future.state.is_crashed()):
                future.result()  # raises what Prefect itself came to: the work did not even begin

    run_flow(lambda: trials(name, len(work), return_state=True), name, first=ENDING.set)
    if ended:
        raise min(ended, key=_expected)


def _expected(error: Exception) -> int:
    """The less, the more it says: a defect first, then what failed, and last what was ended because of it."""
    return isinstance(error, RecstillError) + isinstance(error, InterruptedWorkError)


def _default_workers(scenario: Scenario) -> int:
    if scenario.trainer.accelerator != "cpu":
        return 1
    return max(1, cores() // threads_per_network())


def _require_one_device(scenario: Scenario, name: str) -> None:
    """A trial trains on one device: several would each run the trial's program, and only one can answer for it."""
    devices = scenario.trainer.devices
    count = len(devices) if isinstance(devices, list) else devices
    if scenario.trainer.num_nodes > 1 or (isinstance(count, int) and count not in (0, 1)):
        raise SettingsError(
            f"'scenarios.{name}.trainer' names several devices, and each trial trains on one",
            "Tune a copy of the scenario with `devices: 1`; trials run side by side anyway.",
        )


def _code() -> str:
    """SHA-256 over the modules of ``components/``: results of other code are not results of this one."""
    folder = Path(__file__).parents[1] / "components"
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@contextmanager
def _only_one(lock: Path, name: str) -> Iterator[None]:
    """One search of a scenario in a checkout at a time.

    Raises:
        RecstillError: There is one already.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RecstillError(
                f"{name} is being tuned in this checkout already (it holds {lock})",
                "Wait for it or end it. One search has as many --workers as it is given.",
            ) from None
        yield
