"""Following the store: the ``prod`` pointer and the candidate beside it, swapped in when they verify.

What is recalled is not loaded. What answers already when it is recalled goes on, and says so: one entry in a log must
not take production down. A service that starts and finds what is live recalled answers with the newest version that
was live before and is not.
"""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from components.errors import IntegrityError, RecstillError, StorageError
from components.provenance.recalls import Recall, RecalledError, refuse_recalled
from components.serving.candidate import Candidate, read_candidate
from components.serving.event_log import log_event
from components.serving.live_model import LiveModel
from components.serving.origins import origin_ids
from components.serving.pointer import PointerFollower, Switch, history
from components.serving.recall_watch import RecallWatch
from components.serving.releases import fetch_release, read_release
from components.serving.served_model import ServedModel
from components.serving.trial import Trial
from components.storage.contract import MissingObjectError, ObjectStore

if TYPE_CHECKING:
    from components.provenance.signing import PublicKey

TRIED_AGAIN_SECONDS = 15.0
Role = Literal["live", "candidate"]


class _Refused(NamedTuple):
    number: str
    reason: str
    at: float


class ReleaseLoader:
    """Loads a release from the store, every byte of it verified; nothing of it stays on the disk.

    Args:
        store: Where releases lie.
        name: Of the model.
        keys: The keys that are trusted now; asked for each time.
        live: Whose threads its models use, and whose models are used again.
        recalls: What is recalled; looked at by the caller.
    """

    def __init__(
        self,
        store: ObjectStore,
        name: str,
        keys: Callable[[], Sequence[PublicKey]],
        live: LiveModel,
        recalls: RecallWatch,
    ) -> None:
        self._store, self._name, self._keys, self._live, self._recalls = store, name, keys, live, recalls

    def load(self, version: int, attestation: str) -> ServedModel:
        """The model of a version, ready to answer; one that is in memory already is not loaded again.

        Raises:
            RecalledError: It, or something that it came from, is recalled.
            IntegrityError: It is signed by nobody who is trusted, is not what was pointed at, or does not verify.
            StorageError: It is not in the store, or the store cannot be read.
        """
        trial = self._live.trial
        for model in (self._live.current, trial.model if trial is not None else None):
            if model is not None and model.version == version and model.facts.get("attestation") == attestation:
                refuse_recalled(model.label, self._recalls.against(model.origins))
                return model
        release = read_release(self._store, self._name, version, tuple(self._keys()))
        if release.attestation != attestation:
            raise IntegrityError(
                f"{self._name}@v{version} has the attestation {release.attestation}, not {attestation} as pointed at",
                "Somebody replaced it: deploy another version.",
            )
        origins = origin_ids(self._store, release)
        refuse_recalled(str(release), self._recalls.against(origins))
        identity = {
            "attestation": release.attestation,
            "signed_by": release.signed_by,
            "commit": release.commit,
            "created": release.created,
            "gate": dict(release.gate),
        }
        with tempfile.TemporaryDirectory(prefix="recstill-") as folder:
            fetched = fetch_release(self._store, release, Path(folder))
            model = ServedModel(
                fetched, self._live.threads, self._live.workers, version=version, identity=identity, origins=origins
            )
        if model.facts["package"] != release.package or model.name != self._name:
            raise IntegrityError(f"the package of {self._name}@v{version} is that of {model.label}")
        return model


class Follower:
    """Two threads that look at the store again and again: one at the pointer, one at the candidate.

    A candidate that is large must not delay a rollback, so they do not wait for each other. What does not verify is
    refused, and what is live goes on; it is tried again later, since bytes may be repaired.

    Args:
        store: Where releases lie.
        name: Of the model.
        live: What is swapped.
        keys: The keys that are trusted now.
        seconds: Between two looks.
    """

    def __init__(
        self,
        store: ObjectStore,
        name: str,
        live: LiveModel,
        keys: Callable[[], Sequence[PublicKey]],
        seconds: float = 1.0,
    ) -> None:
        self._store, self._name, self._live, self._seconds = store, name, live, seconds
        self._keys = keys
        self._recalls = RecallWatch(store, keys)
        self._loader = ReleaseLoader(store, name, keys, live, self._recalls)
        self._pointer = PointerFollower(store, name, keys)
        self._done = 0
        self._refused: dict[str, _Refused] = {}
        self._unreachable: set[str] = set()
        self._told_waiting = False
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(step,), name=step.__name__, daemon=True)
            for step in (self.follow_pointer, self.follow_candidate)
        ]

    def start(self) -> None:
        """Load what is live now, if that can be done, and follow from then on."""
        self._guarded(self.follow_pointer)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; what is being loaded is not waited for."""
        self._stopped.set()

    def alive(self) -> bool:
        """Whether both threads still look."""
        return all(thread.is_alive() for thread in self._threads)

    def follow_pointer(self) -> None:
        """Look once at the pointer, and swap when it has moved.

        Raises:
            IntegrityError: The log of switches or that of recalls is not right; nothing is loaded then.
            StorageError: The store cannot be read.
        """
        switch = self._pointer.latest()
        self._recalls.look(switch)
        if self._live.current is not None:
            self._live.tell_recalled(self._recalls.against(self._live.current.origins))
        if switch is None:
            if not self._told_waiting:
                fields = {"name": self._name, "reason": "no version is live yet", "store": self._store.address}
                log_event("waiting", fields)
            self._told_waiting = True
            return
        if switch.number != self._done and self._may_try("live", str(switch.number)):
            started = time.monotonic()
            model = self._loaded("live", str(switch.number), switch)
            if model is None and self._live.current is None and self._live.wanted is not None:
                self._stand_in(switch)
            # Whoever went back while it was being loaded, or recalled it, does not want it: the next look tells.
            if model is not None and self._still_wanted(model, switch):
                self._live.swap(model, kind=switch.kind, number=switch.number, seconds=time.monotonic() - started)
                self._live.tell_not_loaded(str(switch), ())
                self._done = switch.number

    def _still_wanted(self, model: ServedModel, switch: Switch) -> bool:
        latest = self._pointer.latest()
        self._recalls.look(latest)
        return latest == switch and not self._recalls.against(model.origins)

    def _stand_in(self, switch: Switch) -> None:
        """In place of what is live and recalled: the newest that was live before, verifies, and is not recalled.

        Raises:
            IntegrityError: The log of switches is not right.
            StorageError: The store cannot be read.
        """
        tried = {(switch.version, switch.attestation)}
        for earlier in reversed(history(self._store, self._name, tuple(self._keys()))):
            if (earlier.version, earlier.attestation) in tried:
                continue
            tried.add((earlier.version, earlier.attestation))
            started = time.monotonic()
            model = self._loaded("live", str(switch.number), earlier, stands_in=True)
            if model is not None:
                self._live.swap(model, kind="stand-in", number=switch.number, seconds=time.monotonic() - started)
                return

    def follow_candidate(self) -> None:
        """Look once at the candidate, and load, refuse or forget it.

        Raises:
            StorageError: The store cannot be read.
        """
        candidate = read_candidate(self._store, self._name, tuple(self._keys()))
        trial = self._live.trial
        if candidate is None:
            if trial is not None:
                self._live.trial = None
                log_event("candidate_withdrawn", trial.summary())
            return
        if trial is None or trial.number != candidate.number:
            seconds = candidate.until - time.time()
            trial = Trial(candidate.number, candidate.version, candidate.mode, candidate.share, seconds)
            self._live.trial = trial
        self._recalls.look()
        if trial.model is not None and trial.state == "loaded":
            if found := self._recalls.against(trial.model.origins):
                trial.refused()
                self._live.refuse("candidate", trial.model.label, f"it is recalled: {found[0]}")
        elif trial.model is None and trial.state != "expired" and self._may_try("candidate", candidate.number):
            model = self._loaded("candidate", candidate.number, candidate)
            if model is None:
                trial.refused()
            else:
                trial.loaded(model)
                log_event("candidate_loaded", {"version": model.label, "mode": trial.mode, "share": trial.share})

    def _loaded(
        self, role: Role, number: str, wanted: Switch | Candidate, *, stands_in: bool = False
    ) -> ServedModel | None:
        """The model, or None when it is refused.

        Raises:
            StorageError: The store cannot be read.
        """
        recalls: Sequence[Recall] = ()
        try:
            return self._loader.load(wanted.version, wanted.attestation)
        except StorageError as error:
            if not isinstance(error, MissingObjectError):
                raise
            reason = error.message
        except RecstillError as error:
            reason = error.message
            recalls = error.recalls if isinstance(error, RecalledError) else ()
        # Whatever a package can make a library do, the service goes on.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        shown = f"{self._name}@v{wanted.version}"
        if role == "live" and not stands_in:
            self._live.tell_not_loaded(shown, recalls)
        place = f"stand-in {shown}" if stands_in else role
        before = self._refused.get(place)
        self._refused[place] = _Refused(number, reason, time.monotonic())
        if before is None or before[:2] != (number, reason):
            self._live.refuse(role, shown, reason)
        return None

    def _may_try(self, role: Role, number: str) -> bool:
        refused = self._refused.get(role)
        return refused is None or refused.number != number or time.monotonic() - refused.at >= TRIED_AGAIN_SECONDS

    def _repeat(self, step: Callable[[], None]) -> None:
        while not self._stopped.wait(self._seconds):
            self._guarded(step)

    def _guarded(self, step: Callable[[], None]) -> None:
        """One look; a store that cannot be read, or holds nonsense, is told once, and once more when it can."""
        what = step.__name__
        try:
            step()
        except Exception as error:
            self._live.metrics.store_errors.inc()
            told = error.message if isinstance(error, RecstillError) else f"{type(error).__name__}: {error}"
            if what not in self._unreachable and isinstance(error, IntegrityError):
                self._live.refuse("live" if step == self.follow_pointer else "candidate", self._name, told)
            elif what not in self._unreachable:
                log_event("store_unreadable", {"step": what, "reason": told}, logging.ERROR)
            self._unreachable.add(what)
        else:
            if what in self._unreachable:
                self._unreachable.discard(what)
                log_event("store_readable", {"step": what})
