"""Seeded damages to a checkout with registered versions; each names the object that an audit has to name."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.provenance.signing import sign, signing_key
from tests.unit.flows.small_checkout import git

STORE = ".recstill/store"
_REMOTE = f"{STORE}/dvc/files/md5"
_NEVER = re.compile(r"runs/|releases/[^/]+/candidate")


@dataclass(frozen=True)
class Damage:
    """One damage.

    Attributes:
        kind: Such as ``flip``.
        place: ``remote``, ``soft-labels``, ``packages``, ``releases``, ``git``, ...
        named: A finding is about it when it has one of these: MD5s in the remote, keys of the store, refs of git.
        apply: Does it to a copy of the checkout.
    """

    kind: str
    place: str
    named: tuple[str, ...]
    apply: Callable[[Path], None]

    def __str__(self) -> str:
        return f"{self.kind} {self.place} {' '.join(self.named)}"


def seeded_damages(root: Path, count: int, seed: int = 0) -> list[Damage]:
    """So many different damages, of every kind in turn; the same arguments give the same."""
    draw = random.Random(seed)
    groups = objects(root)
    makers = [maker(root, groups, draw) for maker in _MAKERS]
    found: dict[str, Damage] = {}
    misses = 0
    while len(found) < count and misses < 200 * len(makers):
        for maker in makers:
            damage = next(maker)
            if str(damage) in found:
                misses += 1
            elif len(found) < count:
                found[str(damage)] = damage
    assert len(found) == count, f"only {len(found)} different damages can be done to {root}"
    return list(found.values())


def objects(root: Path) -> dict[str, list[str]]:
    """Files of store and remote from the checkout's root, by group."""
    groups: dict[str, list[str]] = {}
    for path in sorted((root / STORE).rglob("*")):
        key = path.relative_to(root / STORE).as_posix()
        if path.is_file() and not _NEVER.match(key) and path.stat().st_size > 1:
            group = "remote" if key.startswith("dvc/") else key.partition("/")[0]
            groups.setdefault(group, []).append(f"{STORE}/{key}")
    return groups


def name_of(file: str) -> str:
    """What an audit calls an object: its MD5 in the remote, its key in the store."""
    return file.removeprefix(f"{_REMOTE}/").replace("/", "") if file.startswith(_REMOTE) else file[len(STORE) + 1 :]


def _any(groups: dict[str, list[str]], draw: random.Random) -> tuple[str, str]:
    """Groups first: attestations are few, and count as much as parts."""
    group = draw.choice(sorted(groups))
    return group, draw.choice(groups[group])


def _flips(root: Path, groups: dict[str, list[str]], draw: random.Random) -> Iterator[Damage]:
    while True:
        group, file = _any(groups, draw)
        place, bit = draw.randrange((root / file).stat().st_size), 1 << draw.randrange(8)

        def apply(copy: Path, file: str = file, place: int = place, bit: int = bit) -> None:
            content = bytearray((copy / file).read_bytes())
            content[place] ^= bit
            overwrite(copy / file, bytes(content))

        yield Damage("flip", group, (name_of(file),), apply)


def _cuts(root: Path, groups: dict[str, list[str]], draw: random.Random) -> Iterator[Damage]:
    while True:
        group, file = _any(groups, draw)
        # Less than a byte of white space at the end may go unpunished in a record; a byte more may not.
        size = draw.randrange((root / file).stat().st_size - 1)
        yield Damage("cut", group, (name_of(file),), lambda copy, f=file, s=size: _cut(copy / f, s))  # type: ignore[misc]


def _deletes(root: Path, groups: dict[str, list[str]], draw: random.Random) -> Iterator[Damage]:
    while True:
        group, file = _any(groups, draw)
        yield Damage("delete", group, (name_of(file),), _deleting([file]))


def _swaps(root: Path, groups: dict[str, list[str]], draw: random.Random) -> Iterator[Damage]:
    while True:
        group, one = _any(groups, draw)
        other = draw.choice(groups[group])
        if (root / one).read_bytes() == (root / other).read_bytes():
            continue

        def apply(copy: Path, one: str = one, other: str = other) -> None:
            first, second = (copy / one).read_bytes(), (copy / other).read_bytes()
            overwrite(copy / one, second)
            overwrite(copy / other, first)

        yield Damage("swap", group, (name_of(one), name_of(other)), apply)


def _forged_tags(root: Path, groups: dict[str, list[str]], draw: random.Random) -> Iterator[Damage]:
    tags = _version_tags(root)
    while True:
        tag = draw.choice(tags)
        name = tag.partition("@")[0]
        head = git(root, "rev-parse", "HEAD")
        free = draw.randrange(10, 99)
        yield Damage("forge: moved", "git", (f"refs/tags/{tag}",), lambda c, t=tag, h=head: _tag(c, t, h, _text(c, t)))  # type: ignore[misc]
        yield Damage("forge: other attestation", "git", (f"refs/tags/{tag}",), lambda c, t=tag, n=free: _tag(
            c, t, _commit(c, t), re.sub(r"sha256:\w+", f"sha256:{n:064x}", _text(c, t))))  # type: ignore[misc]  # fmt: skip
        yield Damage("forge: no message", "git", (f"refs/tags/{tag}",), lambda c, t=tag: _light(c, t, _commit(c, t)))  # type: ignore[misc]
        made = f"{name}@v{free}.0.0"
        yield Damage("forge: new", "git", (f"refs/tags/{made}",), lambda c, t=made, h=head: _tag(c, t, h, "by hand"))  # type: ignore[misc]
        yield Damage("delete", "git", (f"refs/tags/{tag}",), lambda c, t=tag: git(c, "tag", "-d", t) and None)  # type: ignore[misc]


def _signed_anew(root: Path, groups: dict[str, list[str]], draw: random.Random) -> Iterator[Damage]:
    signed = [file for files in groups.values() for file in files if file.endswith(".dsse.json")]
    while True:
        file = draw.choice(signed)

        def apply(copy: Path, file: str = file) -> None:
            envelope = json.loads((copy / file).read_bytes())
            with tempfile.TemporaryDirectory() as folder:
                key = signing_key(Path(folder))
                payload = base64.b64decode(envelope["payload"])
                overwrite(copy / file, sign(payload, envelope["payloadType"], key))

        yield Damage("signed by another key", file.split("/")[2], (name_of(file),), apply)


def _edited_locks(root: Path, groups: dict[str, list[str]], draw: random.Random) -> Iterator[Damage]:
    tags = _version_tags(root)
    while True:
        tag = draw.choice(tags)
        lines = git(root, "show", f"{tag}:dvc.lock").splitlines()
        places = [number for number, line in enumerate(lines) if re.fullmatch(r"\s+md5: [0-9a-f]{32}", line)]
        place, digits = draw.choice(places), f"{draw.getrandbits(128):032x}"

        def apply(copy: Path, tag: str = tag, place: int = place, digits: str = digits) -> None:
            edited = git(copy, "show", f"{tag}:dvc.lock").splitlines()
            edited[place] = re.sub(r"[0-9a-f]{32}", digits, edited[place])
            with tempfile.TemporaryDirectory() as folder:
                index, lock = f"{folder}/index", Path(folder, "lock")
                lock.write_text("\n".join(edited) + "\n")
                blob = git(copy, "hash-object", "-w", str(lock))
                commands = f"GIT_INDEX_FILE={index}"
                _with_index(copy, commands, ["read-tree", tag])
                _with_index(copy, commands, ["update-index", "--cacheinfo", f"100644,{blob},dvc.lock"])
                tree = _with_index(copy, commands, ["write-tree"])
            commit = git(copy, "commit-tree", tree, "-p", f"{_commit(copy, tag)}^", "-m", "the same run")
            _tag(copy, tag, commit, _text(copy, tag))

        yield Damage("edited lock", "git", (f"refs/tags/{tag}",), apply)


def _rolled_back(root: Path, groups: dict[str, list[str]], draw: random.Random) -> Iterator[Damage]:
    """An older, validly signed or whole record in the place of a newer one."""
    alike: dict[str, list[str]] = {}
    for files in groups.values():
        for file in files:
            name = file.rsplit("/", 1)[1]
            if name in ("manifest.json", "attestation.dsse.json", "package.json") or "/prod/" in file:
                alike.setdefault(re.sub(r"\d+", "", name) + file.split("/")[2], []).append(file)
            elif file.startswith((f"{STORE}/provenance/", f"{STORE}/recalls/", f"{STORE}/receipts/")):
                alike.setdefault(file.split("/")[2], []).append(file)
    choices = [sorted(files) for files in alike.values() if len(files) > 1]
    while True:
        older, newer = sorted(draw.sample(draw.choice(choices), 2))
        yield Damage("rolled back", newer.split("/")[2], (name_of(newer),), lambda copy, o=older, n=newer: overwrite(
            copy / n, (copy / o).read_bytes()))  # type: ignore[misc]  # fmt: skip


def _truncated(root: Path, groups: dict[str, list[str]], draw: random.Random) -> Iterator[Damage]:
    logs: dict[str, list[str]] = {}
    for files in groups.values():
        for file in files:
            if re.fullmatch(r"\d{8}(\.dsse)?\.json", file.rsplit("/", 1)[1]):
                logs.setdefault(file.rsplit("/", 1)[0], []).append(file)
    while True:
        folder = draw.choice(sorted(logs))
        lost = sorted(logs[folder])[-draw.randrange(1, len(logs[folder]) + 1) :]
        place = "releases" if "/prod" in folder else folder.split("/")[2]
        yield Damage("truncated", place, tuple(map(name_of, lost)), _deleting(lost))


def _deleting(files: Sequence[str]) -> Callable[[Path], None]:
    def apply(copy: Path) -> None:
        for file in files:
            (copy / file).unlink()

    return apply


_MAKERS: Sequence[Callable[[Path, dict[str, list[str]], random.Random], Iterator[Damage]]] = (
    _flips,
    _cuts,
    _deletes,
    _swaps,
    _forged_tags,
    _signed_anew,
    _edited_locks,
    _rolled_back,
    _truncated,
)


def overwrite(path: Path, content: bytes) -> None:
    """Other bytes in a file that may be write-protected; its size and time need not tell."""
    path.chmod(0o644)
    path.write_bytes(content)


def _cut(path: Path, size: int) -> None:
    overwrite(path, path.read_bytes()[:size])


def _version_tags(root: Path) -> list[str]:
    return [tag for tag in git(root, "tag").splitlines() if "@v" in tag]


def _text(root: Path, tag: str) -> str:
    return git(root, "for-each-ref", "--format=%(contents)", f"refs/tags/{tag}")


def _commit(root: Path, tag: str) -> str:
    return git(root, "rev-parse", f"{tag}^{{commit}}")


def _tag(root: Path, tag: str, commit: str, text: str) -> None:
    git(root, "tag", "-f", "-a", "-m", text, tag, commit)


def _light(root: Path, tag: str, commit: str) -> None:
    git(root, "tag", "-f", tag, commit)


def _with_index(root: Path, index: str, command: list[str]) -> str:
    name, _, value = index.partition("=")
    done = subprocess.run(
        ["git", "-C", str(root), *command], env={**os.environ, name: value}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
