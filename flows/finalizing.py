"""From a finished run to a registered version: verify, commit, push, read back, attest, tag, tell.

Each step looks at what is there before it does anything, so that a run that was killed anywhere is finalized by doing
it again: in the end there is one version, with the same digests. Never a tag before its bytes were read back.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import IntegrityError, RecstillError, StorageError
from components.settings.reading import PARAMS_FILE
from components.storage.contract import MissingObjectError, ObjectStore
from flows.admitting import refuse_recalled_run, require_judged
from flows.locked_outputs import LOCK, lock_problems, workspace_problems
from flows.repository import (
    GitError,
    changes,
    git,
    identity,
    keys_of,
    push,
    push_remote,
    pushed_refs,
    require_pushed,
    require_repository,
    store_of,
)
from flows.run_branches import bring_commit, commit_of_lock, tip
from flows.trust import signer
from flows.version_claims import claim_version, claimed_version

if TYPE_CHECKING:
    from components.serving.releases import Release

Say = Callable[[str], None]
_SHOWN_KEY = 12
_TRIES = 5


@dataclass(frozen=True)
class FinishedRun:
    """A run that is to become a version.

    Attributes:
        checkout: The user's checkout; its files are left alone.
        worktree: Where the run was made, on a commit; only ``dvc.lock`` and ``params.yaml`` may differ from it.
        scenario: What was run; the model has the same name.
        key: What identifies the run: the same data and parameters have the same key, in hexadecimal digits.
        verdict: Of the gate; becomes ``gate.json`` of the release.
    """

    checkout: Path
    worktree: Path
    scenario: str
    key: str
    verdict: Mapping[str, Any]


@dataclass(frozen=True)
class Registered:
    """A version.

    Attributes:
        name: Of the model.
        version: Its number.
        commit: Which holds the run's ``dvc.lock``.
        attestation: SHA-256 of the signed attestation.
        created: When the run was done, in ISO 8601, UTC.
    """

    name: str
    version: int
    commit: str
    attestation: str
    created: str


@dataclass
class Finalizing:
    """A run on its way; what the steps have found out so far."""

    run: FinishedRun
    say: Say
    store: ObjectStore
    commit: str = ""
    created: str = ""
    release: Release | None = None
    tag: str = ""

    @property
    def branch(self) -> str:
        """The branch that keeps the run's lock."""
        return branch_of(self.run.scenario, self.run.key)

    @property
    def registered(self) -> Registered:
        """What the steps have made."""
        if self.release is None:
            raise RecstillError(f"the run of {self.run.scenario} is not attested yet")
        one = self.release
        return Registered(one.name, one.version, one.commit, one.attestation, one.created)


def branch_of(scenario: str, key: str) -> str:
    """The branch that keeps a run's lock."""
    return f"recstill/{scenario}/{key[:_SHOWN_KEY]}"


def keep_lock(run: FinishedRun, say: Say) -> None:
    """The first steps alone: the run's lock on its branch, so that it can be finished when its worktree is gone.

    Raises:
        RecstillError: As of :func:`finalize`.
    """
    work = Finalizing(run, say, store_of(run.checkout))
    verify_outputs(work)
    commit_lock(work)


def finalize(run: FinishedRun, say: Say) -> Registered:
    """Make a version of a finished run. Doing it again, after a kill or an error, goes on where it stopped.

    Raises:
        RecstillError: A step cannot be done: a dirty tree, an unpushed commit, a remote or server that does not answer.
            What is done so far is kept, and is nothing that anybody could take for a version unless it is one.
    """
    require_repository(run.checkout)
    work = Finalizing(run, say, store_of(run.checkout))
    for _, step in STEPS:
        step(work)
    return work.registered


def verify_outputs(work: Finalizing) -> None:
    """The worktree is clean but for the lock and the parameters, and its files are what the lock records."""
    run = work.run
    if found := changes(run.worktree, but=(LOCK, PARAMS_FILE)):
        raise GitError(
            f"{run.worktree} has changes that are in no commit: {', '.join(found[:3])}", "A run starts from a commit."
        )
    require_pushed(run.worktree, git(run.worktree, "rev-parse", "HEAD").strip())
    if problems := workspace_problems(run.worktree, run.scenario) + lock_problems(run.worktree, run.scenario):
        raise IntegrityError(
            f"the run in {run.worktree} is not what its {LOCK} records: {'; '.join(problems[:3])}",
            f"Run it again: `recstill run {run.scenario}`.",
        )
    work.say(f"the outputs are what {LOCK} records")


def commit_lock(work: Finalizing) -> None:
    """``dvc.lock`` and ``params.yaml`` on a branch of the run; no checked-out file and no index is touched."""
    run, ref = work.run, f"refs/heads/{work.branch}"
    there = tip(run.checkout, ref)
    if release := release_of_run(run.checkout, work.store, run.scenario, run.key, there):
        # An earlier attempt, or another machine, has got as far as this: its lock counts, whatever this one measured.
        _take_over(work, release)
    else:
        work.commit = commit_of_lock(run, work.branch)
        seconds = int(git(run.checkout, "show", "-s", "--format=%ct", work.commit))
        work.created = datetime.fromtimestamp(seconds, UTC).isoformat()
        if there != work.commit:
            git(run.checkout, "update-ref", "-m", "recstill: a finished run", ref, work.commit)
    work.say(f"{LOCK} is in {work.commit[:_SHOWN_KEY]} on {work.branch}")


def push_bytes(work: Finalizing) -> None:
    """The outputs to DVC's remote."""
    from flows.dvc_remote import push_scenario

    if work.release is None:
        push_scenario(work.run.worktree, work.run.scenario, work.say)


def push_branch(work: Finalizing) -> None:
    """The branch to git's remote, if there is one."""
    remote, ref = push_remote(work.run.checkout), f"refs/heads/{work.branch}"
    if remote is None:
        work.say("the repository has no remote: the branch stays here")
        return
    before = pushed_refs(work.run.checkout, remote, ref).get(ref)
    for attempt in range(_TRIES):
        try:
            # An older tip is of an attempt that became no version.
            push(work.run.checkout, remote, f"+{work.commit}:{ref}")
            break
        except GitError:
            # Two pushes of one branch at one moment: git takes one of them.
            there = pushed_refs(work.run.checkout, remote, ref).get(ref)
            if there == before or attempt == _TRIES - 1:
                raise
            before = there
    there = pushed_refs(work.run.checkout, remote, ref).get(ref)
    if there is None:
        raise GitError(f"{remote} does not have {work.branch}, which was pushed to it", "Run again.")
    # Another tip is of a machine that finishes the same run at this moment: whoever attests first decides, see attest.
    work.say(f"{work.branch} is at {remote}{'' if there == work.commit else ', pushed by another machine too'}")


def read_back(work: Finalizing) -> None:
    """Every byte from DVC's remote, hashed; what is damaged there is written once more."""
    from flows.dvc_remote import push_scenario, verify_pushed

    run = work.run
    problems = verify_pushed(run.worktree, run.scenario, work.commit)
    if problems and work.release is None:
        work.say(f"damaged or missing at the remote, written again: {'; '.join(problems[:3])}")
        push_scenario(run.worktree, run.scenario, work.say, again=True)
        problems = verify_pushed(run.worktree, run.scenario, work.commit)
    if problems:
        raise IntegrityError(
            f"what was pushed cannot be read back: {'; '.join(problems[:3])}",
            "Check the remote's storage; nothing was registered.",
        )
    work.say("every byte was read back from the remote")


def attest(work: Finalizing) -> None:
    """The release in the store: package, verdict, statements, bill, the signed attestation last; the run's number."""
    from components.serving.releases import publish, verify_release, versions
    from flows.attesting import statements_of
    from flows.auditing.sketching import sketch_run
    from flows.version_papers import any_dirty, version_papers

    run, name, who = work.run, work.run.scenario, identity(work.run.checkout)
    key = signer(run.checkout, "nobody could use the version")
    package = run.worktree / "artifacts" / name / "package"
    with _one_at_a_time(run.checkout):
        if work.release is None and (release := release_of_run(run.checkout, work.store, name, run.key, work.commit)):
            _take_over(work, release)
            push_branch(work)
        statements = statements_of(run.worktree, name, work.store, work.say) if work.release is None else []
        sketch_run(run.worktree, name, (), work.say)
        if work.release is None:
            require_judged(run.verdict, package)
            refuse_recalled_run(run.checkout, work.store, name, package, statements)
            version = claim_version(work.store, name, run.key, next_free(work, versions(work.store, name)))
            try:
                work.release = publish(
                    work.store,
                    package,
                    run.verdict,
                    name=name,
                    version=version,
                    commit=work.commit,
                    created=work.created,
                    key=key,
                    beside=version_papers(
                        run.worktree,
                        name,
                        version,
                        commit=work.commit,
                        created=work.created,
                        statements=statements,
                    ),
                    dirty=any_dirty(statements),
                    run_key=run.key,
                    who=f"{who.name} <{who.email}>",
                )
            except StorageError:
                # The number is this run's: another machine that finishes it has just attested it, and that counts.
                release = release_of_run(run.checkout, work.store, name, run.key, work.commit)
                if release is None:
                    raise
                _take_over(work, release)
                push_branch(work)
    if work.release is not None and (problems := verify_release(work.store, work.release)):
        raise IntegrityError(
            f"the release cannot be read back: {'; '.join(problems[:3])}",
            "Check the store; the version is not tagged, so nothing deploys it.",
        )
    work.say(f"{name}@v{work.registered.version} is attested: sha256:{work.registered.attestation}")


def next_free(work: Finalizing, taken: list[int]) -> int:
    """The version that the run gets."""
    from flows.registry import next_version

    return next_version(work.run.checkout, work.run.scenario, taken)


def tag_version(work: Finalizing) -> None:
    """The GTO tag, whose message names the attestation."""
    from flows.registry import register

    one = work.registered
    work.tag = register(work.run.checkout, one.name, one.version, one.commit, one.attestation)
    work.say(f"tagged {work.tag}")


def push_tag(work: Finalizing) -> None:
    """The tag to git's remote, if there is one."""
    from flows.registry import publish_tag

    if publish_tag(work.run.checkout, work.tag):
        work.say(f"{work.tag} is pushed")


def announce(work: Finalizing) -> None:
    """``recstill.model.registered`` to the Prefect server, if there is one."""
    from flows.events import emit_registered

    emit_registered(work.registered, work.say)


STEPS: tuple[tuple[str, Callable[[Finalizing], None]], ...] = (
    ("verify", verify_outputs),
    ("commit", commit_lock),
    ("push bytes", push_bytes),
    ("push branch", push_branch),
    ("read back", read_back),
    ("attest", attest),
    ("tag", tag_version),
    ("push tag", push_tag),
    ("tell", announce),
)
"""The steps in their order. A kill between any two, or within one, is mended by finalizing again."""


def release_of_run(checkout: Path, store: ObjectStore, name: str, key: str, commit: str) -> Release | None:
    """The release that was made of a run, whoever has made it; None when none was.

    Args:
        checkout: A checkout of the repository.
        store: What all machines share.
        name: Of the model.
        key: Of the run.
        commit: Of the run's lock, as far as it is known here; empty when it is not. Versions of before numbers were
            claimed are found by it.

    Raises:
        IntegrityError: There is one and it is damaged, or no trusted key has signed it.
        StorageError: The store cannot be read.
    """
    from components.provenance.signing import trusted_keys
    from components.serving.releases import read_release, versions

    numbers = versions(store, name)
    keys = trusted_keys(keys_of(checkout)) if numbers else ()
    if (owned := claimed_version(store, name, key)) is not None:
        if owned not in numbers:
            return None
        try:
            return read_release(store, name, owned, keys)
        except IntegrityError as error:
            raise IntegrityError(
                f"the run {key[:_SHOWN_KEY]} is {name}@v{owned} already, and that is refused: {error.message}",
                error.remedy or "Put the release back from a copy; the run gets no second version.",
            ) from None
    for version in sorted(numbers, reverse=True) if commit else ():
        try:
            release = read_release(store, name, version, keys)
        except (IntegrityError, MissingObjectError):  # a damaged release is nobody's
            continue
        if release.commit == commit:
            return release
    return None


def _take_over(work: Finalizing, release: Release) -> None:
    """Go on with what was attested of this run already: its commit, which may be another machine's, and its time."""
    run = work.run
    bring_commit(run.checkout, release.commit, f"{release} was made of this run by another machine")
    git(run.checkout, "update-ref", "-m", "recstill: a finished run", f"refs/heads/{work.branch}", release.commit)
    work.commit, work.created, work.release = release.commit, release.created, release


@contextmanager
def _one_at_a_time(checkout: Path) -> Iterator[None]:
    """Versions of this checkout are numbered one after the other; the lock ends with the process."""
    path = checkout / ".recstill" / "registry.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
