"""The study: which recipes were tried, what came of them, and which to try next. Optuna keeps it.

Recipes are drawn by a tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011, with the constraints of Watanabe
and Hutter, IJCAI 2023): what misses a limit counts less than anything that meets them all, the less the farther off it
is. A trial whose validation is worse than the median of the others at the same epoch is ended early.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from components.errors import StorageError
from components.settings.tune import Choices, Searched
from flows.repository import without_credentials

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial, Trial

STORAGE_VARIABLE = "RECSTILL_TUNE_STORAGE"
JOURNAL = "journal.log"
_BEFORE_MODEL = 8  # trials at random before any is drawn by what the others have shown
_BEFORE_PRUNING = 4  # trials that run to their end, since there is nothing yet to compare with
_DIGITS = 3


@dataclass(frozen=True)
class Tried:
    """A trial that has ended.

    Attributes:
        number: Of the trial.
        recipe: Values by dotted names.
        digest: Of the recipe and all that its result depends on; empty of what was only drawn, not tried.
        state: ``complete``, ``pruned`` (ended early), ``costly`` (not trained: it is much too large or slow) or
            ``failed``; of what was only drawn, ``duplicate`` (tried before) or ``invalid``.
        points: Figures by the variant's form.
        note: For people: why it failed, or the epoch at which it was ended.
        seconds: Wall time.
        steps: Validation by epoch.
    """

    number: int
    recipe: Mapping[str, Any]
    digest: str
    state: str
    points: Mapping[str, Mapping[str, Any]]
    note: str
    seconds: float
    steps: Mapping[int, float]

    @property
    def counts(self) -> bool:
        """Whether a recipe was tried: not what was only drawn, nor what failed, which may be tried again."""
        return bool(self.digest) and self.state != "failed"


class Study:
    """A study in its storage. Threads may use it side by side.

    Args:
        name: Of the study; one of that name goes on.
        space: What each parameter may be.
        place: A database URL of Optuna, or the path of a journal file.
        seed: Of the draws.
        epochs: Of a whole trial: a quarter of them is seen before any trial is ended early.

    Raises:
        StorageError: The storage cannot be opened.
    """

    def __init__(self, name: str, space: Mapping[str, Searched], place: str | Path, *, seed: int, epochs: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        self.name, self.space, self._place = name, dict(space), place
        self._drawing = threading.RLock()
        with self._storage_errors():
            try:
                storage = _opened(place)
            except (ValueError, RuntimeError) as error:  # a kind of database, or a schema, that Optuna does not take
                if isinstance(place, Path):
                    raise
                raise self._unusable(error) from None
            earlier = name in optuna.get_all_study_names(storage)
            before = len(optuna.load_study(study_name=name, storage=storage).get_trials(False)) if earlier else 0
            self._study: optuna.Study = optuna.create_study(
                study_name=name,
                storage=storage,
                direction="maximize",
                load_if_exists=True,
                # A search that goes on draws otherwise than it began: the same seed would draw the same again.
                sampler=optuna.samplers.TPESampler(
                    n_startup_trials=_BEFORE_MODEL, multivariate=True, seed=seed * 100_003 + before
                ),
                pruner=optuna.pruners.MedianPruner(
                    n_startup_trials=_BEFORE_PRUNING, n_warmup_steps=max(1, epochs // 4)
                ),
            )

    def count(self) -> int:
        """Recipes that were tried; those that failed are not counted."""
        return sum(one.counts for one in self.tried())

    @property
    def place(self) -> str:
        """Where it is kept, without credentials."""
        return without_credentials(str(self._place))

    def begin_with(self, recipe: Mapping[str, Any]) -> None:
        """Try a recipe first, unless it was tried already and has not failed; what it cannot have is drawn."""
        held = {key: self._written(key, value) for key, value in recipe.items() if self.space[key].holds(value)}
        with self._storage_errors():
            for trial in self._study.get_trials(deepcopy=False):
                if trial.system_attrs.get("fixed_params") == held and trial.user_attrs.get("state") != "failed":
                    return
            self._study.enqueue_trial(held)

    def abandoned(self) -> list[Trial]:
        """Trials that were interrupted: of processes of this machine that are no more. They go on where they were."""
        import optuna

        found = []
        with self._storage_errors():
            for trial in self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
                host, _, process = str(trial.user_attrs.get("process", "")).partition(":")
                # One that has not even said whose it is was killed within milliseconds of its beginning; in a database
                # it may just as well have begun within the last ones.
                nobodys = not process and isinstance(self._place, Path)
                if nobodys or (host == socket.gethostname() and process and not _runs(process)):
                    found.append(optuna.trial.Trial(self._study, trial._trial_id))
        return found

    def next(self) -> Trial:
        """Begin a trial."""
        with self._drawing, self._storage_errors():
            trial = self._study.ask()
            self.adopt(trial)
            return trial

    def adopt(self, trial: Trial) -> None:
        """Say that a trial is this process's."""
        with self._storage_errors():
            trial.set_user_attr("process", f"{socket.gethostname()}:{_own_process()}")

    def recipe_of(self, trial: Trial) -> dict[str, Any]:
        """The values to try; the same again for the same trial."""
        with self._drawing, self._storage_errors():
            return {key: self._drawn(trial, key, searched) for key, searched in self.space.items()}

    def report(self, trial: Trial, step: int, validation: float) -> bool:
        """Take in an epoch.

        Returns:
            Whether the trial should go on.
        """
        with self._storage_errors():
            trial.report(validation, step)
            return not trial.should_prune()

    def end(
        self,
        trial: Trial,
        *,
        digest: str,
        state: str,
        points: Mapping[str, Mapping[str, Any]],
        value: float | None,
        excesses: Mapping[str, float],
        note: str = "",
        seconds: float = 0.0,
    ) -> None:
        """Record how a trial ended.

        Args:
            trial: Which.
            digest: Of its recipe and all that its result depends on.
            state: See :class:`Tried`.
            points: Figures by form.
            value: What is sought, the greater the better; None where it was not measured.
            excesses: By how much its best point misses each limit, not above 0 where it meets it.
            note: For people.
            seconds: Wall time.
        """
        import optuna

        with self._storage_errors():
            for key, excess in excesses.items():
                trial.set_constraint(key, excess)
            attributes = {"digest": digest, "state": state, "points": points, "note": note, "seconds": seconds}
            for key, attribute in {**attributes, "recipe": self.recipe_of(trial)}.items():
                trial.set_user_attr(key, attribute)
            if state == "complete" and value is not None:
                self._study.tell(trial, value)
            elif state in ("pruned", "costly"):
                self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            else:
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)

    def tried(self) -> list[Tried]:
        """Every trial that has ended, by number."""
        with self._storage_errors():
            trials = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]
        return [_tried(trial) for trial in trials if "digest" in trial.user_attrs]

    def _drawn(self, trial: Trial, key: str, searched: Searched) -> Any:
        if isinstance(searched, Choices):
            return self._read(
                key, trial.suggest_categorical(key, [self._written(key, one) for one in searched.choices])
            )
        if searched.whole:
            step = 1 if searched.step is None else int(searched.step)
            return trial.suggest_int(key, int(searched.low), int(searched.high), step=step, log=searched.log)
        value = trial.suggest_float(key, searched.low, searched.high, step=searched.step, log=searched.log)
        return round(value, 9) if searched.step else float(f"{value:.{_DIGITS}g}")  # as a person would write it

    def _written(self, key: str, value: Any) -> Any:
        """A value as Optuna can keep it: lists and sections as JSON."""
        searched = self.space[key]
        return json.dumps(value) if isinstance(searched, Choices) and _is_nested(searched.choices) else value

    def _read(self, key: str, value: Any) -> Any:
        searched = self.space[key]
        return json.loads(value) if isinstance(searched, Choices) and _is_nested(searched.choices) else value

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        """Within the block, whatever the storage raises is one clear error.

        Raises:
            StorageError: It cannot be reached, is locked, damaged, or refuses.
        """
        import optuna
        import sqlalchemy

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is new in Optuna, and of steps that were reported before
                yield
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError, OSError) as error:
            raise self._unusable(getattr(error, "orig", None) or error.__cause__ or error) from None
        except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
            # What Optuna comes to in a journal that it cannot replay, and of no class of its own.
            if isinstance(self._place, Path) and not _is_sound(self._place):
                reason = f"an entry has no {error}" if isinstance(error, KeyError) else str(error)
                raise StorageError(
                    f"the study's journal {self._place} is damaged: {reason}",
                    "Delete it: results of recipes that were tried are kept beside it.",
                ) from None
            raise

    def _unusable(self, cause: object) -> StorageError:
        return StorageError(
            f"the study's storage {self.place} cannot be used: "
            f"{without_credentials(' '.join(str(cause).split())[:300])}",
            f"Check {STORAGE_VARIABLE} or --storage, and that nobody else holds it; then run again: what was tried "
            "is not tried twice.",
        )


def place_of(folder: Path, given: str | None) -> str | Path:
    """Where studies are kept: a database URL that is given or set in the environment, else a journal in ``folder``."""
    return given or os.environ.get(STORAGE_VARIABLE) or folder / JOURNAL


def _opened(place: str | Path) -> Any:
    import optuna

    if isinstance(place, str):
        return optuna.storages.get_storage(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    _mend(place)
    return _replayed(place)


def _replayed(journal: Path) -> Any:
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage

    return JournalStorage(JournalFileBackend(str(journal), JournalFileOpenLock(str(journal))))


def _mend(journal: Path) -> None:
    """Cut off half a line, and the lock, of a process that was killed while it wrote; nobody else may write now."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if not journal.is_file():
        return
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) != len(content):
        os.truncate(journal, len(whole))


def _is_sound(journal: Path) -> bool:
    """Whether every entry is one that Optuna can replay."""
    try:
        _replayed(journal)
    except Exception:  # whatever an entry makes of it
        return False
    return True


def _is_nested(choices: Sequence[Any]) -> bool:
    return any(isinstance(choice, dict | list | tuple) for choice in choices)


def _tried(trial: FrozenTrial) -> Tried:
    kept = trial.user_attrs
    return Tried(
        number=trial.number,
        recipe=kept["recipe"],
        digest=kept["digest"],
        state=kept["state"],
        points=kept["points"],
        note=kept["note"],
        seconds=kept["seconds"],
        steps=trial.intermediate_values,
    )


def _own_process() -> str:
    """Number and start of this process: numbers come again."""
    return f"{os.getpid()}-{psutil.Process().create_time():.2f}"


def _runs(process: str) -> bool:
    number, _, started = process.partition("-")
    try:
        return f"{psutil.Process(int(number)).create_time():.2f}" == started
    except (psutil.NoSuchProcess, ValueError):
        return False
