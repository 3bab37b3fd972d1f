"""Every ``dvc.lock`` that a repository knows: of all branches, tags and their history, and of the work trees.

The locks are the truth about which bytes came from which. All of them are read with a handful of git processes, however
many there are, and looked through as bytes: only those that name a digest are parsed.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from components.errors import IntegrityError
from flows.auditing.lock_parsing import FileEntry, Known, StageRun, parse_lock
from flows.locked_outputs import LOCK
from flows.repository import GitError, git, is_repository, without_credentials

__all__ = ["Commit", "FileEntry", "Lock", "LockHistory", "StageRun"]

_VERSION = re.compile(r"refs/tags/([^@#]+@v[1-9]\d*)\.0\.0")
_ABSENT = "0" * 40


class Commit(NamedTuple):
    """A commit that brought a lock.

    Attributes:
        id: 40 hexadecimal digits.
        who: Its author's name.
        email: Its author's address.
        at: When it was committed, ISO 8601.
        subject: First line of its message.
    """

    id: str
    who: str
    email: str
    at: str
    subject: str


@dataclass(eq=False)
class Lock:
    """One content of ``dvc.lock``.

    Attributes:
        blob: Name of its object in git.
        content: The bytes.
        commits: Those that brought it, oldest first; none when it is in no commit yet.
        refs: Full names of the refs whose commit has it.
        where: Work trees in which it lies.
    """

    blob: str
    content: bytes = field(repr=False)
    commits: list[Commit] = field(default_factory=list)
    refs: list[str] = field(default_factory=list)
    where: list[Path] = field(default_factory=list)
    damaged: bool = False
    _known: Known | None = field(default=None, repr=False)
    _stages: list[StageRun] | None = field(default=None, repr=False)

    @property
    def stages(self) -> list[StageRun]:
        """Its stages, in their order; none when it is damaged."""
        if self._stages is None:
            try:
                self._stages = parse_lock(self.content, self._known)
            except IntegrityError:
                self._stages, self.damaged = [], True
        return self._stages

    @property
    def versions(self) -> list[str]:
        """Registered versions, as their tags say: ``movielens@v3``."""
        return [found[1] for ref in self.refs if (found := _VERSION.fullmatch(ref))]

    @property
    def committed(self) -> Commit | None:
        """The commit that brought it first."""
        return self.commits[0] if self.commits else None

    def __str__(self) -> str:
        if self.commits:
            return f"{LOCK} of {self.commits[0].id[:12]}"
        return f"{LOCK} in {self.where[0]}" if self.where else f"{LOCK} {self.blob[:12]}"


class LockHistory:
    """All locks.

    Attributes:
        root: The checkout.
        locks: Oldest first; those that are in no commit last.
        tips: Commit of every ref, by its full name.
        notes: What could not be read, in words.
    """

    def __init__(self, root: Path, locks: Iterable[Lock], tips: dict[str, str], notes: list[str], known: Known) -> None:
        self.root, self.locks, self.tips, self.notes = root, list(locks), tips, notes
        self._known = known
        self._by_blob = {lock.blob: lock for lock in self.locks}
        self._of_commit: dict[str, Lock | None] = {}

    @classmethod
    def read(cls, root: Path) -> LockHistory:
        """The locks of the repository around a checkout; without one, that of the checkout alone.

        What git cannot read is told in ``notes``; the rest counts.
        """
        reading = _Reading(root)
        reading.work_trees()
        if reading.prefix is not None:
            reading.history()
            reading.tips_of_refs()
            reading.contents()
        return cls(root, reading.sorted(), reading.tips, reading.notes, reading.known)

    def containing(self, *digests: str) -> list[Lock]:
        """Locks whose text names one of some MD5s."""
        wanted = [digest.encode() for digest in digests]
        return [lock for lock in self.locks if any(digest in lock.content for digest in wanted)]

    def runs(self, *digests: str) -> Iterator[tuple[Lock, StageRun]]:
        """Stage runs that read or made one of some MD5s, in the order of the locks."""
        wanted = set(digests)
        for lock in self.containing(*digests):
            for run in lock.stages:
                if not wanted.isdisjoint(run.inputs.values()) or not wanted.isdisjoint(run.outputs.values()):
                    yield lock, run

    def at(self, commits: Sequence[str]) -> dict[str, Lock | None]:
        """The locks of some commits, reachable from a ref or not; None where git has no such commit or it no lock."""
        asked = [commit for commit in dict.fromkeys(commits) if commit not in self._of_commit]
        if asked and is_repository(self.root):
            prefix = git(self.root, "rev-parse", "--show-prefix").strip()
            blobs = _checked(self.root, [f"{commit}:{prefix}{LOCK}" for commit in asked])
            new = [blob for blob in blobs if blob and blob not in self._by_blob]
            for blob, content in _contents(self.root, new).items():
                self._by_blob[blob] = Lock(blob, content, _known=self._known)
            for commit, blob in zip(asked, blobs, strict=True):
                self._of_commit[commit] = self._by_blob.get(blob) if blob else None
        return {commit: self._of_commit.get(commit) for commit in commits}

    def has_commits(self, commits: Sequence[str]) -> dict[str, bool]:
        """Which commits this repository has."""
        if not commits or not is_repository(self.root):
            return dict.fromkeys(commits, False)
        found = _checked(self.root, [f"{commit}^{{commit}}" for commit in commits])
        return {commit: bool(name) for commit, name in zip(commits, found, strict=True)}


class _Reading:
    """One reading of a repository."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes: list[str] = []
        self.tips: dict[str, str] = {}
        self.known = Known.nothing()
        self.prefix: str | None = None
        self._locks: dict[str, Lock] = {}
        self._heads: list[str] = []
        if is_repository(root):
            try:
                self.prefix = git(root, "rev-parse", "--show-prefix").strip()
            except GitError as error:
                self.notes.append(f"git cannot read the repository of {root}: {error.message}")

    def lock(self, blob: str) -> Lock:
        return self._locks.setdefault(blob, Lock(blob, b"", _known=self.known))

    def sorted(self) -> list[Lock]:
        def order(lock: Lock) -> tuple[bool, str]:
            return not lock.commits, lock.commits[0].at if lock.commits else ""

        return sorted((lock for lock in self._locks.values() if lock.content), key=order)

    def work_trees(self) -> None:
        """The files that lie in this checkout and in the repository's other work trees."""
        folders = [self.root]
        if self.prefix is not None:
            for line in self._lines("worktree", "list", "--porcelain"):
                key, _, value = line.partition(" ")
                if key == "worktree":
                    folders.append(Path(value) / self.prefix)
                elif key == "HEAD" and value != _ABSENT:
                    self._heads.append(value)
        seen = set()
        for folder in folders:
            if (place := folder.resolve()) in seen or not (folder / LOCK).is_file():
                continue
            seen.add(place)
            try:
                content = (folder / LOCK).read_bytes()
            except OSError as error:
                self.notes.append(f"{folder / LOCK} cannot be read: {error.strerror}")
                continue
            lock = self.lock(hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest())
            lock.content = content
            lock.where.append(folder)

    def history(self) -> None:
        """Which commits brought which lock."""
        if (self.root / git(self.root, "rev-parse", "--git-path", "shallow").strip()).is_file():
            self.notes.append("this clone is shallow: what lies before its first commits is not known here")
        command = ("log", "--all", *self._heads, "--full-history", "-c", "--raw", "--no-abbrev", "--no-renames")
        form = "--format=%x01%H%x00%an%x00%ae%x00%cI%x00%s"
        commit: Commit | None = None
        for line in self._lines(*command, form, "--", LOCK):
            if line.startswith("\x01"):
                commit = Commit(*line[1:].split("\0", 4))
            elif line.startswith(":") and commit is not None:
                names = line.partition("\t")[0].split()[:-1]
                if names[-1] != _ABSENT:
                    # Git tells the newest first.
                    self.lock(names[-1]).commits.insert(0, commit)

    def tips_of_refs(self) -> None:
        """Which refs have which lock."""
        form = "%(refname)%00%(objecttype)%00%(objectname)%00%(*objectname)"
        refs = [line.split("\0") for line in self._lines("for-each-ref", f"--format={form}")]
        self.tips = {ref: (commit if kind == "tag" else name) for ref, kind, name, commit in refs}
        self.tips.update({f"HEAD of {head[:12]}": head for head in self._heads})
        commits = list(dict.fromkeys(self.tips.values()))
        blobs = dict(
            zip(commits, _checked(self.root, [f"{commit}:{self.prefix}{LOCK}" for commit in commits]), strict=True)
        )
        for ref, commit in self.tips.items():
            if ref.startswith("refs/") and (blob := blobs.get(commit)):
                self.lock(blob).refs.append(ref)

    def contents(self) -> None:
        """The bytes of all locks, with one process."""
        wanted = [blob for blob, lock in self._locks.items() if not lock.content]
        found = _contents(self.root, wanted)
        for blob in wanted:
            if blob in found:
                self._locks[blob].content = found[blob]
        if missing := len(wanted) - len(found):
            self.notes.append(
                f"{missing} of {len(self._locks)} versions of {LOCK} are not in this clone (partial or damaged)"
            )

    def _lines(self, *command: str) -> list[str]:
        try:
            return git(self.root, *command, env=_OFFLINE).splitlines()
        except GitError as error:
            self.notes.append(f"the history of {LOCK} is not whole here: {error.message}")
            return []


# A partial clone is not to fetch objects one by one while somebody waits.
_OFFLINE = {"GIT_NO_LAZY_FETCH": "1"}


def _checked(root: Path, names: Sequence[str]) -> list[str]:
    """Object names of expressions of git; empty where there is no such object."""
    if not names:
        return []
    answer = _cat_file(root, "--batch-check", names).decode(errors="replace").splitlines()
    return ["" if line.endswith(" missing") else line.partition(" ")[0] for line in answer]


def _contents(root: Path, blobs: Sequence[str]) -> dict[str, bytes]:
    """Contents of objects by name; those that are not there, or are damaged, are left out."""
    if not blobs:
        return {}
    try:
        answer = memoryview(_cat_file(root, "--batch", blobs))
    except GitError:
        # Git ends at the first damaged object: one after the other, the rest can be read.
        if len(blobs) == 1:
            return {}
        return {name: content for blob in blobs for name, content in _contents(root, [blob]).items()}
    found, position = {}, 0
    for blob in blobs:
        line = bytes(answer[position : position + 200]).partition(b"\n")[0]
        position += len(line) + 1
        words = line.split()
        if len(words) == 3 and words[1] == b"blob":
            size = int(words[2])
            found[blob] = bytes(answer[position : position + size])
            position += size + 1
    return found


def _cat_file(root: Path, how: str, names: Sequence[str]) -> bytes:
    done = subprocess.run(
        ["git", "-C", str(root), "cat-file", how, "--buffer"],
        input="".join(f"{name}\n" for name in names).encode(),
        capture_output=True,
        env={**os.environ, "LC_ALL": "C", **_OFFLINE},
        check=False,
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise GitError(f"git cat-file failed in {root}: {without_credentials(reason[0])}")
    return done.stdout
