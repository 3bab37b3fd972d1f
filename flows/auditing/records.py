"""Runs of stages as the graph of content: what made some bytes, and what was made of them.

The locks of git say it. Where they do not reach (no repository, a commit that is not here) the signed statements of the
store say the same, and stand in for a lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from components.settings.reading import PARAMS_FILE
from flows.auditing.lock_history import Lock, LockHistory
from flows.auditing.lock_parsing import ARTIFACTS, StageRun

if TYPE_CHECKING:
    from components.provenance.stage_run import StageStatement

_LOOKED_AT = 40
FIGURES = frozenset({"metrics", "curves", "plots"})
"""Kinds of outputs that only tell of others."""


class Recorded(NamedTuple):
    """A run, and a lock that records it."""

    run: StageRun
    lock: Lock


class Records:
    """All runs that are known.

    Args:
        history: The locks.

    Attributes:
        locks: Those of git and of the work trees, oldest first, then what stands in for one.
    """

    def __init__(self, history: LockHistory) -> None:
        self.history = history
        self.locks = list(history.locks)
        self._known = {id(lock) for lock in self.locks}

    def add(self, lock: Lock | None) -> None:
        """Take in one more lock."""
        if lock is not None and id(lock) not in self._known:
            self._known.add(id(lock))
            self.locks.append(lock)

    def containing(self, md5: str) -> Iterator[Lock]:
        """Locks whose text names an MD5, registered ones first, then the oldest."""
        wanted = md5.encode()
        yield from sorted((lock for lock in self.locks if wanted in lock.content), key=_rank)

    def makers(self, md5: str, path: str = "", *, first: Lock | None = None) -> list[Recorded]:
        """Runs that made some bytes, one for each distinct record, the best known first.

        Args:
            md5: Of the bytes.
            path: Where, if that is known: the run that made them there comes first.
            first: The lock to look into before all others.
        """
        found: dict[str, Recorded] = {}
        locks = [*([first] if first is not None else ()), *self.containing(md5)]
        for lock in locks[:_LOOKED_AT]:
            for run in sorted(lock.stages, key=lambda one: one.outputs.get(path) != md5):
                if md5 in run.outputs.values():
                    found.setdefault(run.entry, Recorded(run, lock))
        return list(found.values())

    def maker(self, md5: str, path: str, lock: Lock) -> Recorded | None:
        """The run that made some bytes: that of a lock itself, if it has one, else the best known."""
        for run in lock.stages:
            if run.outputs.get(path) == md5:
                return Recorded(run, lock)
        return next(iter(self.makers(md5, path, first=lock)), None)

    def readers(self, md5: str) -> Recorded | None:
        """The oldest run that read some bytes, as data or as code."""
        for lock in sorted(self.containing(md5), key=lambda one: _rank(one)[1:]):
            for run in lock.stages:
                if md5 in run.inputs.values() or md5 in run.code.values():
                    return Recorded(run, lock)
        return None

    def first(self, run: StageRun) -> Lock | None:
        """The oldest lock in git that records a run."""
        md5 = next(iter(run.outputs.values()), "")
        wanted = md5.encode()
        there = (lock for lock in self.locks if lock.commits and wanted in lock.content)
        for lock, _ in zip(there, range(_LOOKED_AT), strict=False):
            if any(one is run or one.entry == run.entry for one in lock.stages if one.address == run.address):
                return lock
        return None

    def expand(self, prefix: str) -> set[str]:
        """MD5s of the locks that begin with some digits."""
        wanted = f"md5: {prefix}".encode()
        found: set[str] = set()
        for lock in self.locks:
            position = lock.content.find(wanted)
            while position >= 0:
                found.add(lock.content[position + 5 : position + 41].partition(b"\n")[0].decode())
                position = lock.content.find(wanted, position + 1)
        return found


def of_statements(statements: Sequence[StageStatement], what: str) -> Lock | None:
    """What stands in for a lock: the runs that signed statements describe.

    Args:
        statements: Of one version, or all there are.
        what: How it is called in messages.
    """
    if not statements:
        return None
    runs = [_run(one) for one in statements]
    names = {md5 for run in runs for md5 in (*run.inputs.values(), *run.outputs.values())}
    content = "".join(f"md5: {md5}\n" for md5 in sorted(names)).encode()
    return Lock(what, content, _stages=runs)


def role_of(run: StageRun) -> str:
    """What a run makes, in a word: the kind of its main output."""
    return kind_of(main_output(run)[0])


@lru_cache(maxsize=1 << 16)
def main_output(run: StageRun) -> tuple[str, str]:
    """Path and MD5 of the largest thing that a run made, figures left out; of a run that made nothing, its address."""
    sizes = {one.path: one.size or 0 for one in run.outs}
    paths = sorted(run.outputs, key=lambda path: (kind_of(path) in FIGURES, -sizes.get(path, 0), path))
    return (paths[0], run.outputs[paths[0]]) if paths else (run.address, "")


@lru_cache(maxsize=1 << 16)
def kind_of(path: str) -> str:
    """The kind of an output by its path: ``artifacts/shop/student`` is ``student``; any other path is that itself."""
    parts = path.split("/")
    if not path.startswith(ARTIFACTS) or len(parts) < 3:
        return path
    return parts[2].partition(".")[0] if len(parts) == 3 else parts[2]


def output_of_kind(runs: Iterable[StageRun], kind: str) -> tuple[StageRun, str, str] | None:
    """The run that made something of a kind, its path and its MD5."""
    for run in runs:
        for path, md5 in sorted(run.outputs.items()):
            if kind_of(path) == kind:
                return run, path, md5
    return None


def _run(statement: StageStatement) -> StageRun:
    sizes: dict[str, int] = {}
    for path, one in statement.subjects.items():
        for output in statement.outputs:
            if path == output or path.startswith(f"{output}/"):
                sizes[output] = sizes.get(output, 0) + one.bytes
    deps = [{"path": path, "md5": md5} for path, md5 in {**statement.inputs, **statement.code}.items()]
    outs = [{"path": path, "md5": md5, "size": sizes.get(path)} for path, md5 in statement.outputs.items()]
    run = StageRun(statement.address, statement.cmd, deps, {PARAMS_FILE: dict(statement.params)}, outs)
    run.__dict__["entry"] = statement.entry
    return run


def _rank(lock: Lock) -> tuple[bool, bool, str]:
    return not lock.versions, not lock.commits, lock.commits[0].at if lock.commits else ""
