"""The registry: GTO tags in git. ``movielens@v3.0.0`` registers a version, ``movielens#prod#7`` says it went live.

Version numbers are whole; GTO wants semantic ones, so ``.0.0`` is put behind. Tags can be forged: what a version is,
and what is live, the signed release in the store and its pointer say. Tags show it in git, and can be made again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from components.errors import RecstillError
from flows.repository import GitError, git, identity, is_repository, push, push_remote, pushed_refs

STAGE = "prod"
_VERSION = re.compile(r"(?P<name>[^@#]+)@v(?P<version>[1-9]\d*)\.0\.0")
_ASSIGNED = re.compile(rf"(?P<name>[^@#]+)#{STAGE}#(?P<number>[1-9]\d*)")


class RegistryError(RecstillError):
    """A tag cannot be made, or contradicts what it should say."""


def shown(name: str, version: int) -> str:
    """A version as people write it: ``movielens@v3``."""
    return f"{name}@v{version}"


def parsed(text: str) -> tuple[str, int | None]:
    """Name and version of ``movielens@v3``; of ``movielens`` the name alone.

    Raises:
        RegistryError: It is neither.
    """
    found = re.fullmatch(r"(?P<name>[A-Za-z0-9_-]+)(?:@v?(?P<version>[1-9]\d{0,8})(?:\.0\.0)?)?", text)
    if found is None:
        raise RegistryError(f"{text!r} is no version", "Write it as movielens@v3, or movielens for the newest.")
    return found["name"], int(found["version"]) if found["version"] else None


def version_tag(name: str, version: int) -> str:
    """The tag that registers a version."""
    return f"{name}@v{version}.0.0"


def registered(root: Path, name: str) -> dict[int, str]:
    """Commits by version, as the tags of this repository have it. GTO counts annotated tags only, and so does this."""
    return {
        int(found["version"]): commit
        for tag, commit in _tags(root, f"{name}@v*")
        if (found := _VERSION.fullmatch(tag)) and found["name"] == name
    }


def next_version(root: Path, name: str, taken: Iterable[int]) -> int:
    """The next free version: above every tag here and at the remote, and above ``taken``.

    Raises:
        GitError: The remote cannot be reached.
    """
    numbers = [0, *taken, *registered(root, name)]
    if remote := push_remote(root):
        for ref in pushed_refs(root, remote, f"refs/tags/{name}@v*"):
            if (found := _VERSION.fullmatch(ref.removeprefix("refs/tags/"))) and found["name"] == name:
                numbers.append(int(found["version"]))
    return max(numbers) + 1


def register(root: Path, name: str, version: int, commit: str, attestation: str) -> str:
    """Make the tag of a version, unless it is there.

    Args:
        root: The checkout.
        name: Of the model.
        version: Its number.
        commit: What the tag is of.
        attestation: SHA-256 of the signed attestation; the tag's message holds it.

    Returns:
        The tag.

    Raises:
        RegistryError: The tag is there for another commit, or GTO refuses.
    """
    tag = version_tag(name, version)
    there = registered(root, name).get(version)
    if there is None:
        _gto(
            "register",
            root,
            name=name,
            ref=commit,
            version=f"v{version}.0.0",
            message=_message(name, version, attestation),
        )
        there = registered(root, name).get(version)
    if there != commit:
        raise RegistryError(
            f"the tag {tag} is of commit {(there or 'nothing')[:12]}, and not of {commit[:12]}",
            f"Somebody made it by hand. Look at it (`git show {tag}`), delete it if it is wrong, and run again.",
        )
    return tag


def publish_tag(root: Path, tag: str, *, seconds: float = 120.0) -> bool:
    """Push a tag, if the repository has a remote; whether it has.

    A tag that another machine has pushed of the same commit is taken over: it says the same at another minute.

    Raises:
        GitError: The remote cannot be reached, or has a tag of that name of another commit.
    """
    remote = push_remote(root)
    if remote is None:
        return False
    ref = f"refs/tags/{tag}"
    try:
        push(root, remote, ref, seconds=seconds)
    except GitError:
        there = pushed_refs(root, remote, ref, f"{ref}^{{}}", seconds=seconds).get(f"{ref}^{{}}")
        if there is None or there != git(root, "rev-parse", f"{ref}^{{commit}}").strip():
            raise
        git(root, "fetch", "--quiet", "--no-tags", remote, f"+{ref}:{ref}", seconds=seconds)
    return True


def fetch_tags(root: Path, name: str, *, seconds: float = 60.0) -> None:
    """Take over tags of a model that this clone does not have.

    Raises:
        GitError: The remote cannot be reached.
    """
    if remote := push_remote(root):
        patterns = [
            f"refs/tags/{name}@v*:refs/tags/{name}@v*",
            f"refs/tags/{name}#{STAGE}#*:refs/tags/{name}#{STAGE}#*",
        ]
        git(root, "fetch", "--quiet", "--no-tags", remote, *patterns, seconds=seconds)


def newest_stage_tag(root: Path, name: str) -> str | None:
    """The stage tag of the greatest number: clocks jump, numbers do not."""
    return max(_stages(root, name), default=(0, None, ""))[1]


def staged(root: Path, name: str) -> int | None:
    """The version that the newest stage tag says is live; None when there is none."""
    commit = max(_stages(root, name), default=(0, None, ""))[2]
    return next((version for version, of in registered(root, name).items() if of == commit), None)


def assign(root: Path, name: str, version: int, message: str) -> str | None:
    """Make the next stage tag, unless the newest one already is of that version.

    Returns:
        The tag, None when there was nothing to do.

    Raises:
        RegistryError: The version has no tag here, or GTO refuses.
    """
    if staged(root, name) == version:
        return None
    if version not in registered(root, name):
        raise RegistryError(f"{version_tag(name, version)} is no tag of this repository", "`git fetch --tags`")
    _gto("assign", root, name=name, stage=STAGE, version=f"v{version}.0.0", message=message, force=True)
    return newest_stage_tag(root, name)


def _stages(root: Path, name: str) -> list[tuple[int, str, str]]:
    """Number, tag and commit of every stage tag."""
    return [
        (int(found["number"]), tag, commit)
        for tag, commit in _tags(root, f"{name}#{STAGE}#*")
        if (found := _ASSIGNED.fullmatch(tag)) and found["name"] == name
    ]


def _message(name: str, version: int, attestation: str) -> str:
    return f"{shown(name, version)}\n\nattestation: sha256:{attestation}\n"


def _tags(root: Path, pattern: str) -> list[tuple[str, str]]:
    """Annotated tags and the commits they are of."""
    if not is_repository(root):
        return []
    form = "%(objecttype) %(*objectname) %(refname:strip=2)"
    rows = (
        line.split(" ", 2)
        for line in git(root, "for-each-ref", f"--format={form}", f"refs/tags/{pattern}").splitlines()
    )
    return [(tag, commit) for kind, commit, tag in rows if kind == "tag"]


def _gto(action: str, root: Path, **arguments: object) -> None:
    # It takes half a second to import, and is needed only when something is written.
    import gto.api
    from gto.exceptions import GTOException
    from scmrepo.exceptions import SCMError

    who = identity(root)
    try:
        getattr(gto.api, action)(str(root), author=who.name, author_email=who.email, **arguments)
    except (GTOException, SCMError) as error:
        raise RegistryError(
            f"GTO refuses to {action} {arguments['name']}: {error}", "`git tag` lists the tags."
        ) from None
    except OSError as error:
        raise GitError(
            f"the tags of {root} cannot be written: {error.strerror}", "Check the permissions of .git."
        ) from None
