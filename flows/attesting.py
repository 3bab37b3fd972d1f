"""Statements about a scenario's stages: made by the run that made the outputs, or afterwards from lock and bytes.

One read of ``dvc.lock``, one of every output. A stage whose entry has a statement is left alone: the first one counts.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.errors import IntegrityError, RecstillError
from components.provenance.outputs import file_digests, told_by
from components.provenance.signing import SigningKey, trusted_keys
from components.provenance.stage_statement import (
    FOLDER,
    REQUIREMENTS,
    FileDigests,
    StageStatement,
    find_statement,
    folder_hash,
    of_lock_entry,
    publish_statement,
    signed,
    statement_key,
)
from components.storage.contract import ObjectStore
from flows.auditing.sketching import sketch_run
from flows.locked_outputs import LOCK, listing, listing_md5, lock_stages
from flows.repository import git, identity, is_repository, keys_of, store_of
from flows.trust import signer

if TYPE_CHECKING:
    from flows.graph import StageResult

Say = Callable[[str], None]
# Code that is in none of these decides over no output. Parameters do, and stand in the statement themselves.
_CODE = ("components", "dvc.yaml", REQUIREMENTS, "pyproject.toml")
_LIBRARIES = ("torch", "pytorch-lightning", "onnx", "onnxruntime", "numpy", "polars", "recstill")
_SHOWN = 12
_NOTHING = FileDigests("", "", 0)


class Times(NamedTuple):
    """When a stage began and ended, in seconds since 1970."""

    started: float
    finished: float


def attest_run(root: Path, scenario: str, results: Iterable[StageResult], say: Say) -> None:
    """Attest what a run has made. It never fails the run: what stands in its way is told.

    Args:
        root: The checkout or worktree of the run.
        scenario: A scenario of params.yaml.
        results: How the run's stages ended.
        say: Takes lines for whoever watches.
    """
    ran = {one.address: Times(one.started, one.started + one.seconds) for one in results if one.outcome == "ran"}
    try:
        key = signer(root, "nobody could use the statements")
        made, problems = attest_missing(root, scenario, store_of(root), key, ran)
    except RecstillError as error:
        say(f"the run is not attested: {error.message}")
    # Whatever a store's library raises: the run's results are there, and finalizing attests what is missing.
    except Exception as error:
        say(f"the run is not attested ({type(error).__name__})")
    else:
        for address in ran.keys() & problems.keys():
            say(f"{address} is not attested: {problems[address]}")
        if made:
            whose = " (made here: it tells that bytes are unchanged, not who made them)" if key.local else ""
            say(f"{scenario}: {len(made)} stages attested, signed by key {key.public.id[:_SHOWN]}{whose}")
    sketch_run(root, scenario, ran, say)


def attest_missing(
    root: Path, scenario: str, store: ObjectStore, key: SigningKey, ran: Mapping[str, Times] | None = None
) -> tuple[list[str], dict[str, str]]:
    """Make the statements of those of a scenario's stages that have none.

    Args:
        root: The checkout or worktree; its outputs have to be as its lock says.
        scenario: A scenario of params.yaml.
        store: Where statements lie.
        key: Signs.
        ran: The stages that have just run here, by address, with their times; the others are attached afterwards.

    Returns:
        Addresses of the stages that were attested; and why others could not be, by their address.

    Raises:
        IntegrityError: There is no lock.
        StorageError: The store cannot be written.
    """
    facts = {address: of_lock_entry(address, entry) for address, entry in _stages(root, scenario).items()}
    missing = [address for address, one in facts.items() if store.size(statement_key(scenario, one["entry"])) is None]
    made: list[str] = []
    problems: dict[str, str] = {}
    if missing:
        about, files = _About.of(root), _Files(root)
        for address in missing:
            try:
                statement = about.statement(facts[address], files, (ran or {}).get(address))
            except IntegrityError as error:
                problems[address] = error.message
                continue
            if publish_statement(store, statement, key):
                made.append(address)
    return made, problems


def statements_of(root: Path, scenario: str, store: ObjectStore, say: Say) -> list[StageStatement]:
    """A statement about every stage that the lock records of a scenario, in the order of the lock.

    Those that are missing are attached afterwards. One that is damaged, or that nobody who is trusted has signed,
    counts for nothing: it is told, and another one is put in its place.

    Args:
        root: The worktree of a finished run; its outputs have to be as its lock says.
        scenario: A scenario of params.yaml.
        store: Where statements lie.
        say: Takes lines for whoever watches.

    Raises:
        IntegrityError: An output is not what the lock records.
        StorageError: The store cannot be read or written.
    """
    key, keys = signer(root, "nobody could use the statements"), trusted_keys(keys_of(root))
    late, problems = attest_missing(root, scenario, store, key)
    if late:
        say(f"attested afterwards, not by the run that made it: {', '.join(late)}")
    if problems:
        address, problem = next(iter(problems.items()))
        raise IntegrityError(f"{address} cannot be attested: {problem}", f"Run it again: `recstill run {scenario}`.")
    found = []
    for address, entry in _stages(root, scenario).items():
        facts = of_lock_entry(address, entry)
        try:
            one = find_statement(store, scenario, facts["entry"], keys)
        except IntegrityError as error:
            say(f"{error.message}; it is replaced")
            one = None
        if one is None:
            one = signed(_About.of(root).statement(facts, _Files(root), None), key)
            publish_statement(store, one, key, instead=True)
        found.append(one)
    return found


def _stages(root: Path, scenario: str) -> dict[str, Any]:
    return {
        address: entry
        for address, entry in lock_stages(root).items()
        if address.partition("@")[2] == scenario and entry.get("outs")
    }


class _About(NamedTuple):
    """What is the same for all statements that are made at once."""

    root: Path
    commit: str
    dirty: bool | None
    who: str
    requirements: str

    @classmethod
    def of(cls, root: Path) -> _About:
        commit, dirty = _commit(root)
        pins = root / REQUIREMENTS
        requirements = file_digests(pins).sha256 if pins.is_file() else ""
        someone = identity(root)
        return cls(root, commit, dirty, f"{someone.name} <{someone.email}>", requirements)

    def statement(self, facts: Mapping[str, Any], files: _Files, times: Times | None) -> StageStatement:
        if times is None:
            files.require_code(facts["code"])
        subjects: dict[str, FileDigests] = {}
        for path, mark in facts["outputs"].items():
            subjects.update(files.of(path, mark))
        told = told_by(self.root, subjects)
        one = StageStatement(
            **facts,
            subjects=subjects,
            commit=self.commit,
            dirty=self.dirty,
            who=self.who,
            digests=told.digests,
            metrics=told.metrics,
            input_sha256=files.sha256_of(facts["inputs"]),
            requirements=self.requirements,
            byproducts=told.byproducts,
        )
        if times is None:  # when and on what machine it ran, nobody noted
            return one
        return replace(
            one,
            started=_moment(times.started),
            finished=_moment(times.finished),
            attached="during the run",
            environment=environment(),
        )


class _Files:
    """Digests of the files of a checkout, each read once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[str, dict[str, FileDigests]] = {}

    def of(self, path: str, mark: str) -> dict[str, FileDigests]:
        """The files of an output, by path from the root.

        Raises:
            IntegrityError: It is not what the lock records.
        """
        found = self._read(path)
        if found is None or _mark(path, found, mark.endswith(FOLDER)) != mark:
            raise IntegrityError(f"{self._root / path} is not what {LOCK} records", "Run the scenario again.")
        return found

    def require_code(self, code: Mapping[str, str]) -> None:
        """What is attested afterwards names the commit that is checked out: the code here has to be the stage's.

        Raises:
            IntegrityError: It is another.
        """
        for path, mark in code.items():
            if (self._read(path) or {}).get(path, _NOTHING).md5 != mark:
                raise IntegrityError(f"{self._root / path} is not the file that {LOCK} records", "Run it again.")

    def sha256_of(self, inputs: Mapping[str, str]) -> dict[str, str]:
        """SHA-256 of those inputs that lie here as the lock records them."""
        known = {}
        for path, mark in inputs.items():
            found = self._read(path)
            if found and _mark(path, found, mark.endswith(FOLDER)) == mark:
                below = {name.removeprefix(f"{path}/"): one.sha256 for name, one in found.items()}
                known[path] = folder_hash(below) if mark.endswith(FOLDER) else found[path].sha256
        return known

    def _read(self, path: str) -> dict[str, FileDigests] | None:
        if path not in self._known:
            here = self._root / path
            if not here.exists():
                return None
            files = [here] if here.is_file() else sorted(file for file in here.rglob("*") if file.is_file())
            self._known[path] = {file.relative_to(self._root).as_posix(): file_digests(file) for file in files}
        return self._known[path]


def _mark(path: str, files: Mapping[str, FileDigests], folder: bool) -> str:
    """What DVC names a file or folder by."""
    if folder:
        return listing_md5(listing({name.removeprefix(f"{path}/"): one.md5 for name, one in files.items()}))
    return files[path].md5 if path in files else ""


def environment() -> dict[str, str]:
    """What of this machine decides over the bits of a result: interpreter, processor, threads, libraries."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}".lower()}
    found["processor"] = _processor()
    found["threads"] = os.environ.get("RECSTILL_THREADS", "1")
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _commit(root: Path) -> tuple[str, bool | None]:
    """The commit that is checked out, and whether code differs from it."""
    if not is_repository(root):
        return "unknown", None
    try:
        head = git(root, "rev-parse", "--verify", "HEAD^{commit}").strip()
        # A lock taken for a look would stop a commit that is made meanwhile.
        command = ("--no-optional-locks", "status", "--porcelain", "--untracked-files=all", "--", *_CODE)
        return head, bool(git(root, *command).strip())
    except RecstillError:
        return "unknown", None


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
