"""The registered versions of a checkout: the union of what tags, releases and the logs of switches name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from components.errors import IntegrityError, RecstillError
from components.provenance.signing import PublicKey
from components.serving.releases import Release, read_release
from components.storage.contract import MissingObjectError, ObjectStore
from flows.repository import git, is_repository

_VERSION = re.compile(r"(?P<name>[A-Za-z0-9_-]+)@v(?P<version>[1-9]\d*)\.0\.0")
_ATTESTED = re.compile(r"^attestation: sha256:([0-9a-f]{64})$", re.MULTILINE)
_RELEASE = re.compile(r"releases/([A-Za-z0-9_-]+)/v([1-9]\d*)/.+")
_END = "\x01"
AT_ONCE = 8
"""Small records that are read from the store at once."""


class Tag(NamedTuple):
    """A tag of git.

    Attributes:
        name: Such as ``movielens@v3.0.0``.
        annotated: Whether it has a message of its own; GTO makes no others.
        commit: What it is of.
        message: Its text.
    """

    name: str
    annotated: bool
    commit: str
    message: str

    @property
    def attestation(self) -> str | None:
        """The SHA-256 that the message gives of the signed attestation."""
        found = _ATTESTED.search(self.message)
        return found[1] if found else None


@dataclass
class Version:
    """One registered version, as each record has it.

    Attributes:
        name: Of the model.
        number: From 1.
        release: What its attestation says; None when it cannot be trusted.
        problem: Why not.
        tag: Of git; None when there is none.
        attestations: What the log of switches says of its attestation's SHA-256.
        here: Whether the repository has its commit.
    """

    name: str
    number: int
    release: Release | None = None
    problem: RecstillError | None = None
    tag: Tag | None = None
    attestations: set[str] = field(default_factory=set)
    here: bool = False

    def __str__(self) -> str:
        return f"{self.name}@v{self.number}"

    @property
    def commit(self) -> str | None:
        """The commit whose lock is the version's; that of the tag only while the attestation cannot be trusted."""
        if self.release is not None:
            return self.release.commit
        return self.tag.commit if self.tag and self.tag.attestation else None


def read_tags(root: Path) -> dict[str, Tag]:
    """All tags of a repository by name; none outside of one."""
    if not is_repository(root):
        return {}
    form = f"%(objecttype)%00%(objectname)%00%(*objectname)%00%(refname:strip=2)%00%(contents){_END}"
    form = form.replace(_END, "%01")
    tags = {}
    for entry in git(root, "for-each-ref", f"--format={form}", "refs/tags").split(f"{_END}\n"):
        if entry.count("\0") == 4:
            kind, name, of, tag, message = entry.split("\0")
            tags[tag] = Tag(tag, kind == "tag", of or name, message)
    return tags


def registered_versions(
    store: ObjectStore,
    keys: Sequence[PublicKey],
    tags: Mapping[str, Tag],
    in_store: Collection[str],
    live: Mapping[str, Mapping[int, set[str]]],
) -> list[Version]:
    """Every version that a tag, an object of a release, or a log of switches names, in order.

    Args:
        store: Where the releases lie.
        keys: Whose signatures count.
        tags: Of git.
        in_store: The keys of the store.
        live: Attestations by version by name, as the logs of switches have them.
    """
    found: dict[tuple[str, int], Version] = {}

    def version(name: str, number: int) -> Version:
        return found.setdefault((name, number), Version(name, number))

    for key in in_store:
        if match := _RELEASE.fullmatch(key):
            version(match[1], int(match[2]))
    known = {name for name, _ in found} | set(live)
    for tag in tags.values():
        # The repository may hold tags of things that are not Recstill's.
        if (match := _VERSION.fullmatch(tag.name)) and (match["name"] in known or tag.attestation):
            version(match["name"], int(match["version"])).tag = tag
    for name, numbers in live.items():
        for number, attestations in numbers.items():
            version(name, number).attestations |= attestations

    def read(one: Version) -> None:
        try:
            one.release = read_release(store, one.name, one.number, keys)
        except (IntegrityError, MissingObjectError) as error:
            one.problem = error

    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(read, found.values()))
    return [found[pair] for pair in sorted(found)]
