"""The repository of git around a checkout: commands with clear errors, worktrees, remotes, and who works in it."""

from __future__ import annotations

import getpass
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from components.errors import RecstillError
from components.storage.contract import ObjectStore
from components.storage.object_store import STORE_VARIABLE, open_store

_REMOTE_SECONDS = 120.0


class GitError(RecstillError):
    """Git refused, or its remote cannot be reached."""


class Identity(NamedTuple):
    """Who does something, as git knows them.

    Attributes:
        name: ``user.name``, or else the name of the account.
        email: ``user.email``, or else an address that nobody has.
    """

    name: str
    email: str


def git(
    root: Path, *command: str, content: bytes = b"", seconds: float | None = None, env: Mapping[str, str] | None = None
) -> str:
    """What a command of git prints, as text.

    Args:
        root: Where it runs.
        command: What follows ``git``.
        content: Its standard input.
        seconds: How long it may take; None: as long as it needs.
        env: Variables to set beside those of this process.

    Raises:
        GitError: It failed, took too long, or git is not installed. No credential of a remote's address is shown.
    """
    return git_bytes(root, *command, content=content, seconds=seconds, env=env).decode(errors="replace")


def git_bytes(
    root: Path, *command: str, content: bytes = b"", seconds: float | None = None, env: Mapping[str, str] | None = None
) -> bytes:
    """What a command of git prints, byte by byte; see :func:`git`.

    Raises:
        GitError: As there.
    """
    # No prompt: nobody may be there to answer it.
    environment = {**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", **(env or {})}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *command],
            input=content,
            capture_output=True,
            env=environment,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise GitError("git is not installed", "Install it.") from None
    except subprocess.TimeoutExpired:
        raise GitError(
            f"git {command[0]} has not ended within {seconds:.0f} s", "Check the remote, then run again."
        ) from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        reason = next((line for line in lines if line.startswith(("fatal:", "error:"))), lines[0])
        raise GitError(f"git {command[0]} failed in {root}: {without_credentials(reason)}")
    return done.stdout


def without_credentials(text: str) -> str:
    """A text in which no address shows a user or a password."""
    return re.sub(r"://[^/@\s]+@", "://", text)


def is_repository(root: Path) -> bool:
    """Whether ``root`` lies in a repository of git."""
    return any((folder / ".git").exists() for folder in (root, *root.resolve().parents))


def require_repository(root: Path) -> None:
    """Refuse a folder that is in no repository, or in one without a commit.

    Raises:
        GitError: It is so.
    """
    if not is_repository(root):
        raise GitError(f"{root} is in no repository of git, which the registry lives in", "`git init`, and commit.")
    try:
        git(root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    except GitError:
        raise GitError(f"the repository of {root} has no commit yet", "Commit the checkout first.") from None


def enter_checkout() -> Path:
    """Make the nearest folder at or above the current one that holds a ``dvc.yaml`` the current folder.

    Raises:
        RecstillError: There is no ``dvc.yaml`` at or above the current folder.
    """
    start = Path.cwd()
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file():
            os.chdir(folder)
            return folder
    raise RecstillError(
        f"{start} is not in a checkout: there is no dvc.yaml", "Change into the checkout and try again."
    )


def main_checkout(root: Path) -> Path:
    """The checkout that a worktree belongs to: the same folder of the repository's main worktree."""
    if not is_repository(root):
        return root
    first = git(root, "worktree", "list", "--porcelain").splitlines()[0].removeprefix("worktree ")
    prefix = git(root, "rev-parse", "--show-prefix").strip()
    folder = Path(first) / prefix
    return folder if (folder / "dvc.yaml").is_file() else root


def store_of(root: Path) -> ObjectStore:
    """The object store of a checkout or one of its worktrees: ``RECSTILL_STORE``, or a folder of the main checkout."""
    return open_store(os.environ.get(STORE_VARIABLE) or f"file://{main_checkout(root).resolve()}/.recstill/store")


def keys_of(root: Path) -> Path:
    """The folder of a checkout's own signing key."""
    return main_checkout(root) / ".recstill" / "keys"


def changes(root: Path, *, but: tuple[str, ...] = ()) -> list[str]:
    """Files of the checkout that differ from its commit or are new, but for those of ``but``."""
    # A lock taken for a look would stop a commit that is made meanwhile.
    prefix = git(root, "rev-parse", "--show-prefix").strip()
    listed = git(root, "--no-optional-locks", "status", "--porcelain", "-z", "--untracked-files=all", "--", ".")
    entries = [entry for entry in listed.split("\0") if len(entry) > 3 and entry[2] == " "]
    return [entry[3:] for entry in entries if entry[3:].removeprefix(prefix) not in but]


def require_clean(root: Path, *, but: tuple[str, ...] = ()) -> None:
    """Refuse a checkout with changes that are in no commit.

    Raises:
        GitError: It has some; the message names the first ones.
    """
    if found := changes(root, but=but):
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise GitError(
            f"{root} has changes that are in no commit: {', '.join(found[:3])}{more}",
            "Commit them, or put them aside with `git stash --include-untracked`.",
        )


def push_remote(root: Path) -> str | None:
    """The remote to push to: ``remote.pushDefault``, else ``origin``, else the first; None when there is none."""
    remotes = git(root, "remote").split()
    if not remotes:
        return None
    chosen = _config(root, "remote.pushDefault")
    if chosen and chosen not in remotes:
        raise GitError(f"remote.pushDefault is {chosen!r}, and there is no such remote", "`git remote` lists them.")
    return chosen or ("origin" if "origin" in remotes else remotes[0])


def require_pushed(root: Path, commit: str) -> None:
    """Refuse a commit that nobody else can have: the repository has remotes, and none of their branches contains it.

    Raises:
        GitError: It is so.
    """
    if push_remote(root) is None:
        return
    if not git(root, "for-each-ref", "--count=1", f"--contains={commit}", "refs/remotes").strip():
        raise GitError(
            f"commit {commit[:12]} is on no remote: a version made from it could not be traced by anybody else",
            "`git push` it first.",
        )


def pushed_refs(root: Path, remote: str, *patterns: str, seconds: float = _REMOTE_SECONDS) -> dict[str, str]:
    """Object names by ref, as a remote has them now.

    Raises:
        GitError: It cannot be reached.
    """
    try:
        listed = git(root, "ls-remote", remote, *patterns, seconds=seconds)
    except GitError as error:
        raise _unreachable(remote, error) from None
    return {line.split("\t")[1]: line.split("\t")[0] for line in listed.splitlines() if "\t" in line}


def push(root: Path, remote: str, *refspecs: str, seconds: float = _REMOTE_SECONDS) -> None:
    """Push refs.

    Raises:
        GitError: The remote cannot be reached, or refuses.
    """
    try:
        git(root, "push", "--quiet", remote, *refspecs, seconds=seconds)
    except GitError as error:
        raise _unreachable(remote, error) from None


def identity(root: Path) -> Identity:
    """Who works here."""
    name = _config(root, "user.name") or os.environ.get("GIT_COMMITTER_NAME", "") or _account()
    email = _config(root, "user.email") or os.environ.get("GIT_COMMITTER_EMAIL", "") or "nobody@localhost"
    return Identity(name, email)


def _unreachable(remote: str, error: GitError) -> GitError:
    return GitError(
        f"the git remote {remote!r} did not take part: {error.message}",
        "Check that it is there (`git remote -v`) and that you may write to it, then run again: nothing is lost.",
    )


def _config(root: Path, key: str) -> str:
    if not is_repository(root):
        return ""
    try:
        return git(root, "config", "--get", key).strip()
    except GitError:  # it is not set
        return ""


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
