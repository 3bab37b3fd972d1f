"""A version made again from its commit, and compared with what was made first.

In a worktree of its own, with an empty DVC cache, no record of runs and an empty store, so that every stage really
runs and every soft label is scored again. Nothing of the checkout, its cache or its store is changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.errors import IntegrityError
from components.settings.reading import PARAMS_FILE, read_document
from flows.auditing.comparing import ComparedFile, Tolerance, compare_folders
from flows.auditing.scratch import scratch_folder
from flows.locked_outputs import LOCK, Output, entries, file_md5, listing, listing_md5, lock_stages, outputs
from flows.repository import GitError, git, keys_of, store_of
from flows.worktrees import BusyError, bring_source, remove_worktree, scratch_worktree, working_in

if TYPE_CHECKING:
    from components.serving.releases import Release
    from components.storage.contract import ObjectStore
    from flows.graph import Stage, StageResult

FOLDER = ".recstill/reproduced"
"""Where the worktrees lie, from the checkout's root."""
Ending = Literal["identical", "within tolerance", "different"]
Say = Callable[[str], None]
# Starting a stage, its imports and DVC's own work, beside the seconds that it tells of.
_START_SECONDS = 6.0
_UNKNOWN_SECONDS = 3.0
_SHOWN = 12


@dataclass(frozen=True)
class Reproduction:
    """What came of making a version again.

    Attributes:
        name: Of the model.
        version: Its number.
        commit: What was run.
        ending: ``identical``: every byte, but for times and memory, which are measured anew. ``within tolerance``:
            weights differ, and every quality figure is near enough. ``different``.
        files: Every file of every output.
        figures: Quality figures that differ, by file and name: first, again, and whether that is within tolerance.
        reasons: What may explain a difference: what is known to be other here than it was then.
        tolerance: Of the figures.
        seconds: What it took.
        worktree: Where it was made, when it was kept.
    """

    name: str
    version: int
    commit: str
    ending: Ending
    files: tuple[ComparedFile, ...]
    figures: Mapping[str, tuple[Any, Any, bool]]
    reasons: tuple[str, ...]
    tolerance: Tolerance
    seconds: float
    worktree: Path | None = None

    def count(self, verdict: str) -> int:
        """How many files have a verdict."""
        return sum(one.verdict == verdict for one in self.files)


@dataclass
class Attempt:
    """A version that is being made again.

    Attributes:
        root: The checkout.
        release: The version.
        path: The worktree.
        base: The commit that its run worked from.
        tree: The folder of the worktree that corresponds to the checkout.
        results: The stages that have run.
    """

    root: Path
    release: Release
    path: Path
    base: str
    tree: Path = field(default_factory=Path)
    results: list[StageResult] = field(default_factory=list)

    def remove(self) -> None:
        """Take the worktree away."""
        remove_worktree(self.root, self.path)


def prepared(root: Path, name: str, number: int | None) -> Attempt:
    """What is to be made again; nothing is written yet.

    Raises:
        RecstillError: There is no such version, or its commit is not here.
    """
    from components.provenance.signing import trusted_keys
    from components.serving.releases import read_release, versions

    store = store_of(root)
    number = number or max(versions(store, name), default=1)
    release = read_release(store, name, number, trusted_keys(keys_of(root)))
    _bring(root, release)
    # The run worked from the commit below the one that holds its lock: its package names that one.
    base = release.lineage.get("commit", "")
    if not _has(root, base):
        base = release.commit
    return Attempt(root, release, root / FOLDER / f"{name}-v{number}", base)


@contextmanager
def alone_with(attempt: Attempt) -> Iterator[None]:
    """Only one at a time makes a version again; the system ends the lock with its process.

    Raises:
        BusyError: Another one is at work.
    """
    path = attempt.root / ".recstill" / "locks" / f"reproduce-{attempt.path.name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{attempt.release} is being made again already", "Let that end.") from None
        yield


def run(attempt: Attempt, say: Say, begins: Callable[[Stage], None], ends: Callable[[StageResult], None]) -> None:
    """Make the worktree and run every stage in it.

    Raises:
        IntegrityError: The source is not what it was.
        RecstillError: A stage failed.
    """
    from flows.dvc_remote import own_cache
    from flows.graph import StageResult, reproduce, scenario_stages

    root, release = attempt.root, attempt.release
    attempt.tree = tree = scratch_worktree(root, attempt.path, attempt.base)
    # As the run had them: the commit below its lock's, with the parameters that it was given.
    (tree / PARAMS_FILE).write_text(git(root, "show", f"{release.commit}:./{PARAMS_FILE}"), encoding="utf-8")
    (tree / LOCK).unlink(missing_ok=True)
    own_cache(tree)
    scenario = read_document(tree)["scenarios"][release.name]
    if source := (scenario.get("source") or {}).get("path"):
        bring_source(root, tree, str(source))
    _require_same_inputs(attempt)
    store = f"file://{(tree / '.recstill' / 'store').resolve()}"
    _bring_warm_start(root, store, (scenario.get("teacher") or {}).get("warm_start"))
    expected = expected_seconds(attempt)
    with working_in(root, tree, store):
        stages = scenario_stages(tree, release.name)
        left = sum(expected.get(stage.address, _START_SECONDS + _UNKNOWN_SECONDS) for stage in stages)
        say(f"{release}: {len(stages)} stages, all of them anew, in {tree}; about {_duration(left)}")
        for number, stage in enumerate(stages, start=1):
            begins(stage)
            started = time.time()
            outcome, own = reproduce(tree, stage.address, force=True)
            attempt.results.append(StageResult(stage.address, outcome, started, time.time() - started, own))
            ends(attempt.results[-1])
            left -= expected.get(stage.address, _START_SECONDS + _UNKNOWN_SECONDS)
            if number < len(stages):
                say(f"{number} of {len(stages)} stages, about {_duration(max(left, 1))} left")


def compared(attempt: Attempt, tolerance: Tolerance, seconds: float) -> Reproduction:
    """Compare every file of every output with what the version's lock records, and with its signed statements.

    Raises:
        StorageError: The bytes of what differs cannot be had from cache or remote.
    """
    release, tree = attempt.release, attempt.tree
    files: list[ComparedFile] = []
    scratch = attempt.path / ".recstill" / "first"
    attested = _attested(attempt)
    for output in outputs(attempt.root, release.name, release.commit):
        files += [_held_against(attested, one, tree) for one in _compared_output(attempt, output, scratch)]
    shutil.rmtree(scratch, ignore_errors=True)
    figures = {
        f"{one.path}: {name}": (*pair, _near(pair, tolerance, name))
        for one in files
        for name, pair in one.figures.items()
    }
    if all(one.verdict in ("identical", "measured") for one in files):
        ending: Ending = "identical"
    elif all(near for *_, near in figures.values()) and not any(one.verdict in ("missing", "unknown") for one in files):
        ending = "within tolerance"
    else:
        ending = "different"
    reasons = () if ending == "identical" else tuple(_differences_of_the_machine(attempt))
    return Reproduction(
        release.name, release.version, release.commit, ending, tuple(files), figures, reasons, tolerance, seconds, tree
    )


def expected_seconds(attempt: Attempt) -> dict[str, float]:
    """What each stage may take, by its address, from what its first run tells of; those that tell nothing are not in.

    A run's record of a stage lies in an output ``artifacts/<scenario>/metrics/<any>.json``.
    """
    from flows.graph import tracked_contents

    records = {
        str(out["md5"]): address
        for address, stage in lock_stages(attempt.root, attempt.release.commit).items()
        for out in stage.get("outs") or ()
        if address.partition("@")[2] == attempt.release.name and Path(str(out["path"])).parent.name == "metrics"
    }
    found = {}
    for md5, content in tracked_contents(attempt.root, set(records)).items():
        try:
            found[records[md5]] = _START_SECONDS + float(json.loads(content)["cost"]["seconds"])
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _compared_output(attempt: Attempt, output: Output, scratch: Path) -> list[ComparedFile]:
    from flows.dvc_remote import restore_output

    again = attempt.tree / output.path
    if not again.exists():
        return [ComparedFile(output.path, "missing", "was not made again")]
    if output.is_folder and again.is_dir():
        found = entries(again)
        if listing_md5(listing(found)) == output.md5:
            return [ComparedFile(f"{output.path}/{name}", "identical") for name in found]
    elif again.is_file() and file_md5(again) == output.md5:
        return [ComparedFile(output.path, "identical")]
    try:
        first = restore_output(attempt.root, attempt.release.commit, output.path, scratch / output.path)
    except IntegrityError as error:
        reason = f"it is another one than {LOCK} records, and the first one is not to be had: {error.message}"
        return [ComparedFile(output.path, "unknown", reason)]
    return compare_folders(first, again, output.path)


def _attested(attempt: Attempt) -> dict[str, str]:
    """SHA-256 by path, of the files whose stage has a signed statement; MD5 alone can be forged.

    Raises:
        IntegrityError: A statement is damaged, or nobody who is trusted has signed it.
    """
    from components.provenance.stage_statement import entry_id, find_statement
    from flows.trust import trusted

    store, keys = store_of(attempt.root), trusted(attempt.root)
    found: dict[str, str] = {}
    for address, entry in lock_stages(attempt.root, attempt.release.commit).items():
        if address.partition("@")[2] == attempt.release.name:
            statement = find_statement(store, attempt.release.name, entry_id(entry), keys)
            found.update({path: one.sha256 for path, one in statement.subjects.items()} if statement else {})
    return found


def _held_against(attested: Mapping[str, str], one: ComparedFile, tree: Path) -> ComparedFile:
    from components.storage.digests import file_digest

    said = attested.get(one.path)
    if one.verdict != "identical" or said is None or file_digest(tree / one.path) == said:
        return one
    return ComparedFile(
        one.path, "other bytes", f"its MD5 is that of {LOCK}, and its SHA-256 not the one that was signed"
    )


def _near(pair: tuple[Any, Any], tolerance: Tolerance, name: str) -> bool:
    """Whether a figure is near enough. Digests follow from the bytes, which are told of themselves."""
    first, again = pair
    if all(isinstance(one, str) and re.fullmatch(r"[0-9a-f]{32,64}", one) for one in pair):
        return True
    if not all(isinstance(one, int | float) for one in pair):
        return False
    return tolerance.holds(float(first), float(again))


def _require_same_inputs(attempt: Attempt) -> None:
    """Refuse to begin when something that no stage makes is not what it was.

    Raises:
        IntegrityError: It names what it is.
    """
    stages = lock_stages(attempt.root, attempt.release.commit)
    own = {address: stage for address, stage in stages.items() if address.partition("@")[2] == attempt.release.name}
    made = {str(out["path"]) for stage in own.values() for out in stage.get("outs") or ()}
    changed = []
    for stage in own.values():
        for dep in stage.get("deps") or ():
            path = attempt.tree / str(dep["path"])
            if str(dep["path"]) in made or "md5" not in dep:
                continue
            if not path.exists():
                changed.append(f"{dep['path']} is missing")
            elif (listing_md5(listing(entries(path))) if path.is_dir() else file_md5(path)) != dep["md5"]:
                changed.append(f"{dep['path']} has changed since")
    if changed:
        raise IntegrityError(
            f"{attempt.release} cannot be made again: {'; '.join(sorted(set(changed))[:3])}",
            "Put the source's files back as they were. Where a person was erased from them, they are gone for good: "
            "the version stays what its signed record says, and cannot be made again.",
        )


def _bring_warm_start(root: Path, store: str, digest: str | None) -> None:
    """The teacher that the run started from, since the store of the reproduction is empty.

    Raises:
        StorageError: It is not in the checkout's store any more.
    """
    if not digest:
        return
    from components.storage.digests import file_digest
    from components.storage.object_store import open_store
    from components.training.teacher_store import fetch_teacher, has_teacher

    here: ObjectStore = store_of(root)
    there = open_store(store)
    if not has_teacher(here, digest):
        raise IntegrityError(
            f"the run started from teacher {digest[:_SHOWN]}, which is not in {here.address} any more",
            "Without it the version cannot be made again.",
        )
    with scratch_folder(root) as folder:  # file by file: weights need not fit into memory
        teacher = fetch_teacher(here, digest, folder / "teacher")
        for path in sorted(one for one in teacher.rglob("*") if one.is_file()):
            there.put(f"teachers/{digest}/{path.relative_to(teacher).as_posix()}", path, file_digest(path))
    manifest = here.get(f"teachers/{digest}/manifest.json")  # last: a teacher is there when that is
    there.put(f"teachers/{digest}/manifest.json", manifest, hashlib.sha256(manifest).hexdigest())


def _differences_of_the_machine(attempt: Attempt) -> list[str]:
    """What is known to be other here than when the version was made."""
    found = []
    try:
        pins = git(attempt.root, "show", f"{attempt.base}:./requirements.lock")
    except GitError:
        found.append("the commit pins no libraries, so those of then are not known")
        pins = ""
    other = []
    for line in pins.splitlines():
        name, separator, pinned = line.partition("==")
        if not separator:
            continue
        try:
            here = version(name.partition("[")[0].strip()).partition("+")[0]
        except PackageNotFoundError:
            here = "none"
        if here != pinned.split(";")[0].strip():
            other.append(f"{name} {here}, pinned {pinned.strip()}")
    if other:
        found.append(f"other versions of libraries: {', '.join(other[:5])}")
    found.append(
        "the processor and its number of threads are in no record: others may change the last bits of a weight"
    )
    return found


def _bring(root: Path, release: Release) -> None:
    from flows.registry import fetch_tags

    if not _has(root, release.commit):
        fetch_tags(root, release.name)
    if not _has(root, release.commit):
        raise GitError(
            f"{release} was registered from commit {release.commit[:_SHOWN]}, which this repository does not have",
            "Fetch it from where the version was registered: its tag names it.",
        )


def _has(root: Path, commit: str) -> bool:
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        return False
    try:
        git(root, "cat-file", "-e", f"{commit}^{{commit}}")
    except GitError:
        return False
    return True


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def stages_told(results: Sequence[StageResult]) -> list[dict[str, Any]]:
    """The stages for a record."""
    return [{"stage": one.address, "seconds": round(one.seconds, 2)} for one in results]
