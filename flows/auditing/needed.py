"""Which objects somebody needs: registered versions, tips of branches and tags, work trees, and recalls.

When something that is needed cannot be read, nobody knows what it needs: then nothing of DVC is named as unneeded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from components.errors import IntegrityError, RecstillError
from flows.auditing.lock_history import Lock, LockHistory
from flows.auditing.places import Places
from flows.locked_outputs import FOLDER, LOCK
from flows.trust import trusted


@dataclass
class Needed:
    """What is needed.

    Attributes:
        md5s: Objects of DVC, listings with ``.dir`` behind.
        packages: Ids of packages of releases.
        recalled: Digests that recalls name, whatever of.
        unknown: Why it is not known what else is needed; empty: it is.
    """

    md5s: set[str] = field(default_factory=set)
    packages: set[str] = field(default_factory=set)
    recalled: frozenset[str] = frozenset()
    unknown: list[str] = field(default_factory=list)

    def is_needed(self, md5: str) -> bool:
        """Whether an object of DVC is."""
        return md5 in self.md5s or md5.removesuffix(FOLDER) in self.recalled


def needed(places: Places) -> Needed:
    """Look at everything that needs something, now.

    Raises:
        StorageError: The store or DVC's remote cannot be read.
    """
    from components.provenance.recalls import recalls
    from components.provenance.receipts import erased
    from flows.auditing.erased_objects import receipts_now

    keys = trusted(places.root)
    found = Needed()
    history = LockHistory.read(places.root)
    found.unknown += [note for note in history.notes if "shallow" not in note]
    found.recalled = frozenset(digest for recall in recalls(places.store, keys) for digest in recall.digests)
    gone = erased(receipts_now(places.root, places.store))
    locks = [lock for lock in history.locks if lock.refs or lock.where]
    for lock in [*locks, *_of_releases(places, history, found)]:
        if not lock.stages and lock.damaged:
            found.unknown.append(f"{lock} is damaged")
        for run in lock.stages:
            for path, md5 in run.outputs.items():
                if md5 in found.md5s:
                    continue
                found.md5s.add(md5)
                if not md5.endswith(FOLDER):
                    continue
                members = places.members(md5)
                if members is not None:
                    found.md5s.update(members.values())
                elif md5 not in gone and _may_exist(places, lock, md5):
                    found.unknown.append(f"the listing of {path} in {lock} ({md5}) is not to be had")
    return found


def _of_releases(places: Places, history: LockHistory, found: Needed) -> Iterator[Lock]:
    """The locks of all releases in the store, tagged here or not."""
    from components.serving.releases import names, read_release, versions

    keys, store = trusted(places.root), places.store
    commits: dict[str, str] = {}
    for name in names(store):
        for number in versions(store, name):
            try:
                release = read_release(store, name, number, keys)
            except IntegrityError as error:
                found.unknown.append(f"{name}@v{number} is damaged: {error.message}")
                continue
            commits[release.commit] = str(release)
            found.packages.add(release.package)
    for commit, lock in history.at(list(commits)).items():
        if lock is None:
            found.unknown.append(f"{LOCK} of {commits[commit]}, commit {commit[:12]}, is not in this repository")
        else:
            yield lock


def _may_exist(places: Places, lock: Lock, md5: str) -> bool:
    """Whether the files of a folder without a listing may lie here: those of a version do, or did.

    A branch may record a run of another machine, whose bytes were never pushed: then there is nothing to keep.
    """
    return bool(lock.versions) or any(place.has(md5) for place in (*places.caches, places.remote))


def require_known(found: Needed) -> None:
    """Refuse to name anything of DVC as unneeded while it is not known what is needed.

    Raises:
        RecstillError: It is not known.
    """
    if found.unknown:
        more = f", and {len(found.unknown) - 3} more" if len(found.unknown) > 3 else ""
        raise RecstillError(
            f"it is not known what is needed, so nothing is named: {'; '.join(found.unknown[:3])}{more}",
            "`git fetch --tags`, and `recstill verify --repair`; what is damaged has to be mended first.",
        )
