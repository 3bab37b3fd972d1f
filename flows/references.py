"""Who uses which cache of soft labels: this checkout, the branches, the tags, and the versions that are registered.

A run's record is ``dvc.lock``, which names the MD5 of ``artifacts/<scenario>/soft_labels/manifest.json``. Most often
the store itself has a manifest with that MD5; otherwise DVC is asked for its content. A reference whose content nobody
has is kept, without a cache id, so that whoever wants to delete something can see that he does not know enough.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from components.errors import RecstillError

MANIFESTS = "artifacts/*/soft_labels/manifest.json"
"""Where the scenarios of a checkout keep their manifests."""

_MANIFEST = re.compile(r"artifacts/([^/]+)/soft_labels/manifest\.json")
_LOCK = "dvc.lock"
_KINDS = ("version", "workspace", "branch", "tag")  # in the order in which they count
_ID = re.compile(r"[0-9a-f]{64}")
# GTO: name@v1.2.3 registers a version, name#prod assigns a stage to one; #2 behind it counts repetitions.
_REGISTERED = re.compile(r"[^@#!]+(@v\d[^@#!]*|#[^@#!]+)(#\d+)?")


@dataclass(frozen=True)
class Reference:
    """Something that refers to a cache.

    Attributes:
        kind: ``workspace``: files of this checkout or of another worktree. ``branch``: the tip of one, local or
            remote-tracking, or of any other ref that is no tag. ``version``: a tag of GTO. ``tag``: any other tag.
        name: Of the branch, tag or version; the folder of a workspace.
        scenario: Whose cache it is.
        md5: Of the manifest's bytes, empty when they cannot be read.
        cache: The cache id; None when it cannot be found out.
    """

    kind: Literal["workspace", "branch", "tag", "version"]
    name: str
    scenario: str
    md5: str
    cache: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.name} (scenario {self.scenario})"


def references(root: Path, known: Mapping[str, str]) -> list[Reference]:
    """All that refers to a cache of soft labels.

    Args:
        root: The checkout. It need not be in a repository of git.
        known: Cache ids by the MD5 of manifests that are at hand.

    Raises:
        RecstillError: There is a repository and git cannot read it.
    """
    found: dict[Reference, None] = {}
    ids = dict(known)
    for folder in worktrees(root):
        for reference, cache_id in _of_workspace(folder):
            if cache_id:
                ids[reference.md5] = cache_id
            found[reference] = None
        lock = folder / _LOCK
        if lock.is_file():
            found.update(dict.fromkeys(_of_lock(lock.read_bytes(), "workspace", str(folder))))
    found.update(dict.fromkeys(_of_refs(root)))
    ids.update(_asked_of_dvc(root, {reference.md5 for reference in found} - set(ids) - {""}))
    resolved = [replace(reference, cache=ids.get(reference.md5)) for reference in found]
    return sorted(resolved, key=lambda one: (_KINDS.index(one.kind), one.name, one.scenario))


def _of_workspace(folder: Path) -> Iterator[tuple[Reference, str]]:
    """The manifests that lie in a checkout, and their cache ids."""
    for path in sorted(folder.glob(MANIFESTS)):
        try:
            content = path.read_bytes()
        except OSError:
            content = b""
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        yield Reference("workspace", str(folder), path.relative_to(folder).parts[1], md5), _cache_id(content)


def _of_lock(content: bytes, kind: Any, name: str) -> Iterator[Reference]:
    """The manifests that a ``dvc.lock`` records; one that cannot be read refers to nobody knows what."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(content)
        stages = (loader.get_single_data() or {}).get("stages") or {}
        outs = [out for stage in stages.values() for out in stage.get("outs") or ()]
        for out in outs:
            if found := _MANIFEST.fullmatch(str(out["path"])):
                yield Reference(kind, name, found[1], str(out.get("md5") or ""))
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, UnicodeDecodeError):
        yield Reference(kind, name, f"not known, its {_LOCK} is damaged", "")


def _of_refs(root: Path) -> Iterator[Reference]:
    """The manifests that the ``dvc.lock`` of any ref of the repository records."""
    prefix = _prefix(root)
    if prefix is None:
        return
    refs = [*_git(root, "for-each-ref", "--format=%(refname)").decode().split(), "HEAD"]
    asked = "".join(f"{ref}:{prefix}{_LOCK}\n" for ref in refs)
    answers = _git(root, "cat-file", "--batch-check", content=asked.encode()).decode().splitlines()
    # Many refs have the same record: each is read once.
    blobs = {ref: answer.split()[0] for ref, answer in zip(refs, answers, strict=True) if " blob " in answer}
    contents = _blobs(root, sorted(set(blobs.values())))
    parsed = {blob: list(_of_lock(content, "branch", "")) for blob, content in contents.items()}
    seen: set[str] = set()
    for ref, blob in blobs.items():
        if ref == "HEAD" and blob in seen:  # a branch's tip, unless HEAD is detached
            continue
        seen.add(blob)
        kind, name = _kind_of(ref)
        yield from (replace(reference, kind=kind, name=name) for reference in parsed[blob])


def _kind_of(ref: str) -> tuple[Any, str]:
    if tag := ref.removeprefix("refs/tags/") if ref.startswith("refs/tags/") else "":
        return ("version" if _REGISTERED.fullmatch(tag) else "tag"), tag
    return "branch", re.sub(r"^refs/(heads/|remotes/)?", "", ref)


def _blobs(root: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Contents of git objects by their names."""
    if not names:
        return {}
    answer = _git(root, "cat-file", "--batch", content="".join(f"{name}\n" for name in names).encode())
    contents, position = {}, 0
    for name in names:
        line = answer.index(b"\n", position)
        size = int(answer[position:line].split()[2])
        contents[name] = answer[line + 1 : line + 1 + size]
        position = line + size + 2
    return contents


def worktrees(root: Path) -> list[Path]:
    """This checkout, and the same folder of every other worktree of its repository."""
    prefix = _prefix(root)
    if prefix is None:
        return [root]
    listed = _git(root, "worktree", "list", "--porcelain").decode().splitlines()
    others = [Path(line.removeprefix("worktree ")) / prefix for line in listed if line.startswith("worktree ")]
    return [root, *(folder for folder in others if folder.is_dir() and folder.resolve() != root.resolve())]


def _prefix(root: Path) -> str | None:
    """The path of the checkout below the top of its repository, ``/`` at its end; None outside of any."""
    if not any((folder / ".git").exists() for folder in (root, *root.resolve().parents)):
        return None
    return _git(root, "rev-parse", "--show-prefix").decode().removesuffix("\n")


def _git(root: Path, *command: str, content: bytes = b"") -> bytes:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *command],
            input=content,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError:
        raise RecstillError("git is not installed, so nobody knows which caches are in use", "Install it.") from None
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise RecstillError(f"git {command[0]} failed in {root}: {reason[0]}", "Mend the repository and try again.")
    return done.stdout


def _asked_of_dvc(root: Path, hashes: set[str]) -> dict[str, str]:
    if not hashes:
        return {}
    from flows.graph import tracked_contents

    ids = {md5: _cache_id(content) for md5, content in tracked_contents(root, hashes).items()}
    return {md5: cache_id for md5, cache_id in ids.items() if cache_id}


def _cache_id(content: bytes) -> str:
    """What a manifest of any format gives as its id; empty when it is no manifest."""
    try:
        found = str(json.loads(content)["id"])
    except (ValueError, KeyError, TypeError):
        return ""
    return found if _ID.fullmatch(found) else ""
