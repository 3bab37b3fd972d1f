"""A git worktree for a scheduled run: a clean commit, the bytes of DVC shared, and nobody's files touched.

There is one for each scenario below ``.recstill/worktrees``, which git ignores and DVC therefore does not look into. It
is kept after the run, so that its report can be looked at and an interrupted training goes on where it was.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from components.errors import RecstillError, SettingsError, StorageError
from components.storage.object_store import STORE_VARIABLE
from flows.locked_outputs import LOCK
from flows.repository import GitError, git, push_remote, require_repository, store_of

FOLDER = ".recstill/worktrees"
"""Where the worktrees lie, from the checkout's root."""
SHOWN = 12
"""Digits of a commit or key in a name."""
# A new file in one of these changes what a run does; anywhere else it is somebody's own affair.
_DECISIVE = ("components", "flows", "params.yaml", "dvc.yaml", "requirements.lock", "pyproject.toml")
_BRANCH_PATIENCE = 120.0

_HANDED_ON: set[Path] = set()


class BusyError(RecstillError):
    """Another retraining of the scenario is at work."""


@contextmanager
def scenario_lock(checkout: Path, scenario: str, *, handed_on: bool = False) -> Iterator[None]:
    """Only one retraining of a scenario at a time; the system ends the lock with its process, however that dies.

    Args:
        checkout: The user's checkout.
        scenario: Of params.yaml.
        handed_on: The next one in this process that asks for the lock, within the block, has it through this one.

    Raises:
        SettingsError: That is no scenario's name.
        BusyError: Another one is at work.
        StorageError: The file system has no locks.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", scenario):  # it becomes a path, and may come from Prefect's page
        raise SettingsError(f"unknown scenario {scenario[:100]!r}", "params.yaml lists them.")
    path = checkout / ".recstill" / "locks" / f"retrain-{scenario}.lock"
    if path in _HANDED_ON:
        _HANDED_ON.remove(path)
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            who = stream.read().strip()
            raise BusyError(
                f"a retraining of {scenario} is at work already{f' (process {who})' if who else ''}",
                "Nothing was changed. Let it end; the next one takes whatever data have come meanwhile.",
            ) from None
        except OSError as error:
            raise StorageError(f"{path} cannot be locked: {error.strerror}", "Use a local disk.") from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        if handed_on:
            _HANDED_ON.add(path)
        try:
            yield
        finally:
            _HANDED_ON.discard(path)
            stream.truncate(0)


def clean_commit(checkout: Path) -> str:
    """The commit to run: that of the checkout, which must be all there is, and known to others if there are any.

    A run of ``recstill run`` leaves ``dvc.lock`` behind, and a user may keep notes and data in the checkout: these do
    not count.

    Raises:
        GitError: No repository, no commit, a tracked file is changed, code or a parameter is new, or the repository
            has remotes and none has the commit.
    """
    require_repository(checkout)
    command = ("--no-optional-locks", "status", "--porcelain", "--no-renames", "-z")
    tracked = _entries(git(checkout, *command, "--untracked-files=no", "--", "."))
    new = _entries(git(checkout, *command, "--untracked-files=all", "--", *_DECISIVE))
    prefix = git(checkout, "rev-parse", "--show-prefix").strip()
    found = sorted({name.removeprefix(prefix) for name in (*tracked, *new)} - {LOCK})
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise GitError(
            f"{checkout} has changes that are in no commit: {', '.join(found[:3])}{more}",
            "A retraining works from a commit. Commit them, or put them aside with `git stash --include-untracked`.",
        )
    commit = git(checkout, "rev-parse", "HEAD").strip()
    on_remotes = git(checkout, "for-each-ref", "--count=1", f"--contains={commit}", "refs/remotes").strip()
    if push_remote(checkout) is not None and not on_remotes:
        raise GitError(
            f"commit {commit[:SHOWN]} is on no remote: a version made from it could not be traced by anybody else",
            "`git push` it first.",
        )
    return commit


def open_worktree(checkout: Path, scenario: str, commit: str) -> Path:
    """A worktree of a commit with nothing changed in it; one that an earlier run left is taken up again.

    What git ignores stays in it: outputs, and the state of an interrupted training. The scenario's worktrees of other
    commits are removed. The caller holds the scenario's lock.

    Args:
        checkout: The user's checkout, which is not touched.
        scenario: Of params.yaml.
        commit: 40 hexadecimal digits.

    Returns:
        The folder of it that corresponds to the checkout.

    Raises:
        GitError: Git refuses.
    """
    from flows.dvc_remote import shared_cache

    folder = checkout / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{scenario}-{commit[:SHOWN]}"
    mine = re.compile(rf"{re.escape(scenario)}-[0-9a-f]{{{SHOWN}}}")
    with _one_at_a_time(checkout):
        for other in folder.iterdir():
            if mine.fullmatch(other.name) and other != path:
                _discard(checkout, other)
        git(checkout, "worktree", "prune")
        if not _reset(path, commit):
            _discard(checkout, path)
            git(checkout, "worktree", "add", "--quiet", "--detach", str(path), commit, seconds=_BRANCH_PATIENCE)
    tree = path / git(checkout, "rev-parse", "--show-prefix").strip()
    # Locks that a killed run held; nobody else works here.
    shutil.rmtree(tree / ".dvc" / "tmp", ignore_errors=True)
    shared_cache(checkout, tree)
    return tree


def scratch_worktree(checkout: Path, path: Path, commit: str) -> Path:
    """A worktree of a commit in which nothing was ever run, over whatever an earlier one has left in its place.

    Args:
        checkout: The user's checkout, which is not touched.
        path: Where it is to lie, in a folder that git ignores. The caller sees to it that nobody else uses it.
        commit: 40 hexadecimal digits.

    Returns:
        The folder of it that corresponds to the checkout.

    Raises:
        GitError: Git refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(checkout):
        _discard(checkout, path)
        git(checkout, "worktree", "add", "--quiet", "--detach", str(path), commit, seconds=_BRANCH_PATIENCE)
    return path / git(checkout, "rev-parse", "--show-prefix").strip()


def remove_worktree(checkout: Path, path: Path) -> None:
    """Remove a worktree and all that lies in it; one that is not there is no error."""
    with _one_at_a_time(checkout):
        _discard(checkout, path)


def bring_source(checkout: Path, tree: Path, path: str) -> None:
    """Let the worktree see files of a source that lie in the checkout and are in no commit, as they are now.

    Args:
        checkout: The user's checkout.
        tree: The worktree.
        path: ``source.path`` of the scenario.
    """
    withdraw_source(checkout, tree, path)
    if not _lies_within(path):
        return
    source = checkout / path
    for file in [source] if source.is_file() else sorted(source.rglob("*")):
        link = tree / file.relative_to(checkout)
        if file.is_file() and not link.exists():
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)


def withdraw_source(checkout: Path, tree: Path, path: str) -> None:
    """Take away what :func:`bring_source` brought: it belongs to no commit. Empty folders stay."""
    if _lies_within(path):
        there = tree / path
        for link in [there, *there.rglob("*")]:
            if link.is_symlink() and link.readlink().is_relative_to(checkout):
                link.unlink()


def start_from(checkout: Path, tree: Path, revision: str | None) -> bool:
    """Give the worktree the ``dvc.lock`` of a revision, so that what it records need not be made again.

    Returns:
        Whether the revision has one; if not, the worktree has the lock of its own commit, or none.
    """
    if revision is None:
        return False
    try:
        lock = git(checkout, "show", f"{revision}:./{LOCK}")
    except GitError:  # the commit is not here, or has no lock: everything can be made again
        return False
    (tree / LOCK).write_text(lock, encoding="utf-8")
    return True


def sort_lock(tree: Path) -> None:
    """Put the stages of ``dvc.lock`` in the order of their names: stages that ran at once ended in any order."""
    path = tree / LOCK
    head, *stages = re.split(r"^(?=  \S)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    path.write_text(head + "".join(sorted(stages)), encoding="utf-8")


@contextmanager
def working_in(checkout: Path, tree: Path, store: str | None = None) -> Iterator[None]:
    """Within the block the worktree is the current folder, and its stages use the checkout's store and interpreter.

    Args:
        checkout: The user's checkout.
        tree: The worktree.
        store: Address of another store than the checkout's.
    """
    before = Path.cwd()
    with _environment(
        {
            STORE_VARIABLE: store or store_of(checkout).address,
            # `python` in dvc.yaml shall be the interpreter that runs this, activated or not.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "DVC_NO_ANALYTICS": "1",
        }
    ):
        os.chdir(tree)
        try:
            yield
        finally:
            os.chdir(before)


def _lies_within(path: str) -> bool:
    """Is a source's path one of a file or folder of the checkout?"""
    return "://" not in path and not Path(path).is_absolute() and ".." not in Path(path).parts


def _entries(listed: str) -> list[str]:
    """Paths of ``git status --porcelain -z`` without renames."""
    return [entry[3:] for entry in listed.split("\0") if entry]


def _reset(path: Path, commit: str) -> bool:
    """Make an older worktree clean again; False when there is none, or it is broken."""
    if not (path / ".git").is_file():
        return False
    try:
        git(path, "checkout", "--quiet", "--force", "--detach", commit)
        git(path, "reset", "--quiet", "--hard", commit)
        git(path, "clean", "-ffdq")
    except GitError:
        return False
    return True


def _discard(checkout: Path, path: Path) -> None:
    with suppress(GitError):  # git knows nothing of it, or only half of it is left
        git(checkout, "worktree", "remove", "--force", "--force", str(path))
    shutil.rmtree(path, ignore_errors=True)
    git(checkout, "worktree", "prune")


@contextmanager
def _one_at_a_time(checkout: Path) -> Iterator[None]:
    """Worktrees of two scenarios are made one after the other: git itself does not wait for its own locks."""
    path = checkout / ".recstill" / "locks" / "worktrees.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
