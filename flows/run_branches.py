"""The branch that keeps a run's ``dvc.lock``: written without touching a checked-out file or an index."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from components.settings.reading import PARAMS_FILE
from flows.locked_outputs import LOCK
from flows.repository import GitError, git, identity, push_remote, pushed_refs

if TYPE_CHECKING:
    from flows.finalizing import FinishedRun


def commit_of_lock(run: FinishedRun, branch: str) -> str:
    """The commit of a run's lock. The same lock, written at the same time, gives the same commit."""
    base = git(run.worktree, "rev-parse", "HEAD").strip()
    with tempfile.TemporaryDirectory(prefix="recstill-") as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        git(run.worktree, "read-tree", base, env=index)
        git(run.worktree, "update-index", "--add", "--", LOCK, PARAMS_FILE, env=index)
        tree = git(run.worktree, "write-tree", env=index).strip()
    there = tip(run.checkout, f"refs/heads/{branch}")
    if there and git(run.checkout, "show", "-s", "--format=%T %P", there).split() == [tree, base]:
        return there
    # When the run was done, but not before its parent: a clock may have jumped.
    parent = int(git(run.worktree, "show", "-s", "--format=%ct", base))
    when = f"{max(int((run.worktree / LOCK).stat().st_mtime), parent)} +0000"
    who = identity(run.checkout)
    people = {
        f"GIT_{role}_{kind}": value
        for role in ("AUTHOR", "COMMITTER")
        for kind, value in (("NAME", who.name), ("EMAIL", who.email), ("DATE", when))
    }
    message = f"{run.scenario}: a finished run\n\nkey: {run.key}\n"
    return git(run.worktree, "commit-tree", tree, "-p", base, content=message.encode(), env=people).strip()


def tip(root: Path, ref: str) -> str:
    """The commit of a branch; empty when there is none. A branch that another clone has pushed is taken over."""
    try:
        return git(root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}").strip()
    except GitError:
        pass
    remote = push_remote(root)
    if remote is None or ref not in pushed_refs(root, remote, ref):
        return ""
    git(root, "fetch", "--quiet", remote, f"{ref}:{ref}", seconds=120)
    return git(root, "rev-parse", "--verify", f"{ref}^{{commit}}").strip()


def bring_commit(root: Path, commit: str, why: str) -> None:
    """Fetch a commit from git's remote, unless it is here.

    Args:
        root: A checkout of the repository.
        commit: 40 hexadecimal digits.
        why: For the message.

    Raises:
        GitError: It is nowhere to be had.
    """
    for last in (False, True):
        try:
            git(root, "cat-file", "-e", f"{commit}^{{commit}}")
            return
        except GitError:
            remote = None if last else push_remote(root)
            if remote is None:
                raise GitError(
                    f"{why}, from commit {commit[:12]}, which this repository does not have",
                    "Let that machine push it, or run there again: nothing was registered twice.",
                ) from None
        with suppress(GitError):  # by its name alone: no ref may lead to it yet
            git(root, "fetch", "--quiet", remote, commit, seconds=120)
