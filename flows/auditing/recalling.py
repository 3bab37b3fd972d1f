"""What a person wants recalled, as content ids, and what inherits it.

A name is looked up once, when the recall is written; from then on digests alone count. What the lock of a commit knows
by MD5 is brought together with the digests that releases carry, so that a recall reaches releases of any scenario.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from components.errors import DataError, IntegrityError
from components.provenance.recalls import plain_digest
from components.provenance.stage_statement import find_statement
from components.serving.origins import origin_ids
from components.serving.pointer import history
from components.serving.releases import Release, names, read_release, versions
from components.storage.contract import MissingObjectError, ObjectStore
from flows.auditing.lock_history import LockHistory, StageRun
from flows.repository import GitError, git, without_credentials
from flows.trust import trusted

_VERSION = re.compile(r"([A-Za-z0-9_-]+)@v([1-9]\d{0,8})(?:\.0\.0)?")
_REVISION = re.compile(r"([A-Za-z0-9_-]+)@(.+)")
_FULL = (32, 40, 64)
_SHORTEST = 8
# Outputs by the last part of their path, and the names that a release's lineage has for them.
_DATASET, _TEACHER, _PACKAGE = "dataset", "teacher", "package"
_BEFORE_TEACHER = ("source", _DATASET)


@dataclass(frozen=True)
class Target:
    """What is to be recalled.

    Attributes:
        kind: ``dataset``, ``teacher``, ``release``, ...; ``unknown`` when nothing here knows the digest.
        name: As the user wrote it.
        digests: Its content ids.
        notes: Where the recall may not reach, in sentences.
    """

    kind: str
    name: str
    digests: frozenset[str]
    notes: tuple[str, ...] = ()


class Known(NamedTuple):
    """A release, and what it came from.

    Attributes:
        release: The release.
        ids: Everything that a recall may name of it.
        state: ``live``, ``was live`` or ``registered``.
    """

    release: Release
    ids: frozenset[str]
    state: str


class Heir(NamedTuple):
    """A release that inherits.

    Attributes:
        release: The release.
        state: ``live``, ``was live`` or ``registered``.
        through: By what of it: names of its lineage, ``package``, ``release``, or file names.
    """

    release: Release
    state: str
    through: tuple[str, ...]


class Releases(NamedTuple):
    """All releases of a store.

    Attributes:
        known: Those that can be read.
        notes: Those that cannot, in sentences.
    """

    known: tuple[Known, ...]
    notes: tuple[str, ...]


def every_release(root: Path, store: ObjectStore) -> Releases:
    """All releases of a store, those that are live first, then those that were.

    Raises:
        StorageError: The store cannot be read.
    """
    keys, known, notes = trusted(root), [], []
    for name in names(store):
        try:
            switches = history(store, name, keys)
        except IntegrityError as error:
            switches = []
            notes.append(f"what is live of {name} is not known: {error.message}")
        been = {one.version for one in switches}
        for version in versions(store, name):
            try:
                release = read_release(store, name, version, keys)
                ids = origin_ids(store, release)
            except (IntegrityError, MissingObjectError) as error:
                notes.append(f"whether {name}@v{version} inherits is not known: {error.message}")
                continue
            live = bool(switches) and switches[-1].version == version
            known.append(Known(release, ids, "live" if live else "was live" if version in been else "registered"))
    order = {"live": 0, "was live": 1, "registered": 2}
    known.sort(key=lambda one: (order[one.state], one.release.name, -one.release.version))
    return Releases(tuple(known), tuple(notes))


def heirs(releases: Iterable[Known], digests: frozenset[str]) -> list[Heir]:
    """The releases that inherit a recall of some content."""
    return [
        Heir(one.release, one.state, through(one.release, one.ids & digests)) for one in releases if one.ids & digests
    ]


def through(release: Release, shared: Iterable[str]) -> tuple[str, ...]:
    """What of a release some of its content ids are, in words."""
    wanted = {plain_digest(one) for one in shared}
    files = {name: digest for name, digest in release.files.items() if digest != release.package}
    parts = {"release": release.attestation, "package": release.package, **release.lineage, **files}
    found = tuple(name for name, digest in parts.items() if plain_digest(digest) in wanted)
    return found or ("its stages",)


def target_of(root: Path, store: ObjectStore, text: str, releases: Sequence[Known]) -> Target:
    """What a text of the command line names: ``NAME@vN``, ``SCENARIO@REVISION`` (its data set there), or a digest.

    Teachers that were made of it, and those that started from one of these, are bad with it: they are named too.

    Raises:
        DataError: It names nothing, or several things.
    """
    place = _Place(root, store, tuple(releases), LockHistory.read(root))
    place.locks.at([one.release.commit for one in releases])  # all with one call of git; they are remembered
    if version := _VERSION.fullmatch(text):
        return _release(place, text, version[1], int(version[2]))
    if revision := _REVISION.fullmatch(text):
        return _with_teachers(place, _dataset(place, text, revision[1], revision[2]))
    digest = plain_digest(text)
    if not re.fullmatch(rf"[0-9a-f]{{{_SHORTEST},64}}", digest):
        raise DataError(
            f"{text[:100]!r} is no version, no data set of a revision, and no digest",
            f"Write it as movielens@v3, as movielens@main, or as a digest of {_SHORTEST} digits or more.",
        )
    return _with_teachers(place, _content(place, text, digest))


class _Place(NamedTuple):
    root: Path
    store: ObjectStore
    releases: tuple[Known, ...]
    locks: LockHistory

    def stages_of(self, release: Release, digests: Iterable[str]) -> list[StageRun]:
        """What the lock of a release records of its scenario.

        Nothing where the commit is not here, or the lock names none of some digests: most are not worth parsing.
        """
        lock = self.locks.at([release.commit])[release.commit]
        if lock is None or not any(digest.encode() in lock.content for digest in digests):
            return []
        return [run for run in lock.stages if run.scenario == release.name]


def _release(place: _Place, text: str, name: str, version: int) -> Target:
    for one in place.releases:
        if (one.release.name, one.release.version) == (name, version):
            return Target("release", text, frozenset({one.release.attestation, one.release.package}))
    known = ", ".join(f"v{number}" for number in versions(place.store, name)) or "none"
    raise DataError(
        f"{text} cannot be read from {without_credentials(place.store.address)}; of {name} there is: {known}",
        "If it is damaged, recall it by a digest: that in its tag's message, or of what it came from.",
    )


def _dataset(place: _Place, text: str, scenario: str, revision: str) -> Target:
    try:
        commit = git(place.root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").strip()
    except GitError:
        raise DataError(
            f"{revision!r} of {text!r} is no revision of this repository",
            "`git log` lists them, `git fetch` gets more.",
        ) from None
    lock = place.locks.at([commit])[commit]
    path = f"artifacts/{scenario}/{_DATASET}"
    maker = next((run for run in (lock.stages if lock is not None else ()) if path in run.outputs), None)
    if maker is None:
        raise DataError(
            f"commit {commit[:12]} records no data set of {scenario!r}", "`git log -- dvc.lock` lists those that do."
        )
    md5 = plain_digest(maker.outputs[path])
    return _with_releases(place, Target(_DATASET, text, frozenset({md5})), [maker], {path})


def _content(place: _Place, text: str, digest: str) -> Target:
    found: dict[str, str] = {}
    for one in place.releases:
        for match in (known for known in one.ids if known.startswith(digest)):
            found.setdefault(match, through(one.release, [match])[0])
    paths: dict[str, set[str]] = {}
    makers: dict[str, list[StageRun]] = {}
    for lock in place.locks.locks if len(digest) <= _FULL[0] else ():
        if digest.encode() not in lock.content:
            continue
        for run in lock.stages:
            for path, mark in (*run.inputs.items(), *run.outputs.items()):
                if (md5 := plain_digest(mark)).startswith(digest):
                    found[md5] = PurePosixPath(path).name
                    paths.setdefault(md5, set()).add(path)
                    if path in run.outputs:
                        makers.setdefault(md5, []).append(run)
    if not found and len(digest) in _FULL:
        note = "nothing here knows this digest: the recall reaches what is made of it later, or lies elsewhere"
        return Target("unknown", text, frozenset({digest}), (note,))
    if not found:
        raise DataError(
            f"nothing here has a digest that begins with {text}", "Give all of it to recall it all the same."
        )
    if len(found) > 1 and digest not in found:
        raise DataError(f"{text} begins {len(found)} digests: {', '.join(sorted(found))[:300]}", "Give more digits.")
    whole = digest if digest in found else next(iter(found))
    target = Target(found[whole], text, frozenset({whole}))
    if whole not in paths:
        return target
    return _with_releases(place, target, makers.get(whole, []), paths[whole])


def _with_releases(place: _Place, target: Target, makers: Sequence[StageRun], paths: set[str]) -> Target:
    """A target that locks know by MD5, with the digests that releases know it by.

    They come from the signed statements of the stages that made it, and from the releases whose own lock has it among
    what their package was made from. Those releases are named themselves too, so that they are reached either way.
    """
    md5s, digests = target.digests, set(target.digests)
    for run in makers:
        digests |= _attested(place, run, target.kind)
    for one in place.releases:
        if md5s & _ancestors(place.stages_of(one.release, md5s), _PACKAGE):
            digests.add(one.release.attestation)
            if own := one.release.lineage.get(target.kind):
                digests.add(plain_digest(own))
    if len(digests) > len(md5s):
        return Target(target.kind, target.name, frozenset(digests))
    note = (
        f"{', '.join(sorted(paths))} is known by its MD5 alone: no signed statement and no release here tells more. "
        "Releases without statements of their stages are not reached"
    )
    return Target(target.kind, target.name, frozenset(digests), (note,))


def _with_teachers(place: _Place, target: Target) -> Target:
    """A target with all teachers that came of it, also by starting from a teacher that did."""
    digests = set(target.digests)
    while True:
        before = len(digests)
        for one in place.releases:
            teacher = one.release.lineage.get(_TEACHER)
            if teacher is None or plain_digest(teacher) in digests:
                continue
            upstream = {plain_digest(one.release.lineage.get(name, "")) for name in _BEFORE_TEACHER}
            stages = place.stages_of(one.release, digests)
            upstream |= _ancestors(stages, _TEACHER) | {run.warm_start for run in stages if run.warm_start}
            if upstream & digests:
                digests.add(plain_digest(teacher))
        if len(digests) == before:
            return replace(target, digests=frozenset(digests))


def _attested(place: _Place, run: StageRun, kind: str) -> set[str]:
    """What the statement of a stage's run calls its outputs as a whole."""
    try:
        statement = find_statement(place.store, run.scenario, run.entry, trusted(place.root))
    except IntegrityError:
        statement = None
    if statement is None:
        return set()
    chosen: Mapping[str, str] = {kind: statement.digests[kind]} if kind in statement.digests else statement.digests
    return {plain_digest(one) for one in chosen.values()}


def _ancestors(stages: Sequence[StageRun], output: str) -> set[str]:
    """MD5s of an output of a scenario and of all that it came from; of everything for a package that no lock knows."""
    makers = {path: run for run in stages for path in run.outputs}
    wanted = [path for path in makers if PurePosixPath(path).name == output]
    if not wanted and output == _PACKAGE:
        wanted = list(makers)
    found: set[str] = set()
    seen: set[str] = set()
    while wanted:
        path = wanted.pop()
        if path in seen or path not in makers:
            continue
        seen.add(path)
        found.add(plain_digest(makers[path].outputs[path]))
        for needed, md5 in makers[path].inputs.items():
            found.add(plain_digest(md5))
            wanted.append(needed)
    return found
