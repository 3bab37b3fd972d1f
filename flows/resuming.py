"""What an earlier retraining left: a run that the gate has let through, and that was killed before it was a version.

Its lock is on its branch and its bytes are in DVC's cache or remote, so that it is finished as it was, though the data
have moved on and no stage could make the same again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.errors import RecstillError
from components.settings.reading import PARAMS_FILE
from components.storage.contract import ObjectStore
from flows.artifacts import publish_verdict
from flows.finalizing import FinishedRun, branch_of, finalize, release_of_run
from flows.locked_outputs import LOCK, outputs
from flows.params import read_params
from flows.repository import git, keys_of, store_of
from flows.run_branches import bring_commit, tip
from flows.runs import RunRecord, unfinished_runs, write_run
from flows.steps import as_task
from flows.trust import signer, trusted
from flows.worktrees import SHOWN, open_worktree, withdraw_source

Say = Callable[[str], None]


def finish_earlier(checkout: Path, name: str, say: Say) -> list[RunRecord]:
    """Finish what retrainings of a scenario left, the newest first; to be called within a flow.

    A run that is attested becomes a version in any case. One that is not was judged against what was live and newest
    then: when that has changed it is given up, since its data are older than what has come meanwhile. One that cannot
    be finished now, because another machine has its lock or a remote is away, is left as it is; it stops nobody.

    Args:
        checkout: The user's checkout. The caller holds the scenario's lock.
        name: Of the scenario.
        say: Takes lines for whoever watches.

    Returns:
        The records of those that are a version now.

    Raises:
        RecstillError: The store cannot be read, or a record in it is damaged.
    """
    store = store_of(checkout)
    finished = []
    for record in reversed(unfinished_runs(store, name, trusted(checkout))):
        shown = f"run {record.key[:SHOWN]}, which has passed the gate and was interrupted,"
        try:
            lock = tip(checkout, f"refs/heads/{branch_of(name, record.key)}")
            release = release_of_run(checkout, store, name, record.key, lock)
            if release is not None:
                lock = release.commit
                bring_commit(checkout, lock, f"{release} was made of it by another machine")
            elif reason := _overtaken(checkout, store, record):
                say(f"{shown} is given up: {reason}")
                write_run(store, replace(record, status="superseded"), signer(checkout, "nobody could use the record"))
                continue
            if not lock:
                say(f"{shown} has its lock on the machine that made it: it can be finished there")
                continue
            say(f"{shown} is finished first")
            finished.append(_finished(checkout, store, record, lock, say))
        except RecstillError as error:
            say(f"{shown} cannot be finished now and is left as it is: {error.message}")
    return finished


def registered(run: FinishedRun, record: RunRecord, store: ObjectStore, say: Say) -> RunRecord:
    """Make a version of a finished run, keep its teacher for later warm starts, and record it; within a flow.

    Raises:
        RecstillError: As of :func:`flows.finalizing.finalize`.
    """
    version = as_task("finalize", lambda: finalize(run, say))
    as_task("keep the teacher", lambda: _keep_teacher(store, run))
    done = replace(record, status="registered", version=version.version, attestation=version.attestation)
    write_run(store, done, signer(run.checkout, "nobody could use the record"))
    return done


def newest_version(store: ObjectStore, name: str) -> int:
    """The newest version of a name, 0 when there is none."""
    from components.serving.releases import versions

    return max(versions(store, name), default=0)


def line_of(run: RunRecord) -> str:
    """A run that has become a version, in words."""
    return f"registered {run.name}@v{run.version}: {quality(run.verdict)}"


def quality(verdict: dict[str, Any]) -> str:
    """The figures of a verdict, in words."""
    own, champion = verdict["challenger"], verdict["champion"]
    measure = verdict.get("measure") or {"key": "ndcg10", "title": "NDCG@10"}  # verdicts from before it was named
    key, title = measure["key"], measure["title"]
    text = f"{title} {own[key]:.4f} on {own['targets']:,} targets"
    return text if champion is None else f"{text}, v{champion['version']} has {champion[key]:.4f}"


def _overtaken(checkout: Path, store: ObjectStore, record: RunRecord) -> str:
    """Why a run that is not attested is not to become a version any more; empty when it may."""
    from components.provenance.signing import trusted_keys
    from components.serving.pointer import current

    live = current(store, record.name, trusted_keys(keys_of(checkout)))
    newest = newest_version(store, record.name)
    if (live.version if live else None) != record.champion:
        return f"it was judged against {_shown(record.champion)}, and {_shown(live.version if live else None)} is live"
    if record.newest is not None and newest != record.newest:
        return f"v{newest} has been registered since"
    return ""


def _finished(checkout: Path, store: ObjectStore, record: RunRecord, lock: str, say: Say) -> RunRecord:
    publish_verdict(record.name, record.verdict)
    tree = open_worktree(checkout, record.name, record.commit)
    as_task("bring back", lambda: _bring_back(checkout, tree, record.name, lock))
    return registered(FinishedRun(checkout, tree, record.name, record.key, record.verdict), record, store, say)


def _bring_back(checkout: Path, tree: Path, name: str, lock: str) -> None:
    """The files of a run as they were: its lock and parameters from its branch, the outputs from cache or remote."""
    from flows.dvc_remote import restore_output

    git(tree, "restore", f"--source={lock}", "--worktree", "--", LOCK, PARAMS_FILE)
    # Files of a source that git ignores may still be linked to as they are now.
    withdraw_source(checkout, tree, read_params(tree).scenarios[name].source.path)
    for output in outputs(tree, name):
        restore_output(checkout, lock, output.path, tree / output.path)


def _keep_teacher(store: ObjectStore, run: FinishedRun) -> None:
    from components.tasks.building import open_task
    from components.training.teacher_store import put_teacher

    artifacts = run.worktree / "artifacts" / run.scenario
    task = open_task(read_params(run.worktree).scenarios[run.scenario].task, artifacts / "dataset")
    put_teacher(store, artifacts / "teacher", task.outcome_ids)


def _shown(version: int | None) -> str:
    return "nothing" if version is None else f"v{version}"
