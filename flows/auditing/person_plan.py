"""One person: which versions of the data hold them, and what follows from those. Nothing is changed here.

A version of the data is asked by its keyed sketch; where it has none, or one of another key, its bytes are read. Bytes
that nobody has any more cannot hold anybody.
"""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.errors import IntegrityError, RecstillError, SettingsError
from components.storage.digests import file_digest
from flows.auditing.lock_history import Lock, LockHistory
from flows.auditing.places import Places
from flows.auditing.sketching import people_outputs
from flows.locked_outputs import FOLDER, file_md5
from flows.trust import trusted

if TYPE_CHECKING:
    from components.data.subject_key import SubjectKey
    from components.provenance.person_rows import PersonRows
    from components.provenance.receipts import Receipt
    from components.serving.releases import Release
    from flows.auditing.lineage import Lineage

Say = Callable[[str], None]
Known = Literal["sketch and bytes", "bytes", "sketch alone", "unknown", "erased"]
MODELS = (".safetensors", ".onnx")
"""What files of weights and models end in."""
GOLDEN = "golden.json"
_DATASET = "dataset"


@dataclass
class DataVersion:
    """One version of a scenario's data.

    Attributes:
        scenario: Whose.
        outputs: MD5 by path of the outputs that hold people.
        locks: The locks that record it.
        known: How it was found out whether the person is in it; ``erased``: they were, says a receipt, and its bytes
            are gone.
        holds: Whether they are.
        digest: Of the prepared data set; empty when it is not known.
        in_dataset: Whether they are in the prepared data set, and not only among events that were dropped from it.
        rows: How many rows of events they have; 0 when only the sketch says that they are there.
        files: Path by MD5 of the files that hold rows of theirs.
        sha256: SHA-256 of those files by MD5.
        person: What was found in the bytes.
    """

    scenario: str
    outputs: Mapping[str, str]
    locks: list[Lock] = field(default_factory=list)
    known: Known = "unknown"
    holds: bool = False
    digest: str = ""
    in_dataset: bool = False
    rows: int = 0
    files: dict[str, str] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)
    person: PersonRows | None = None

    @property
    def versions(self) -> list[str]:
        """Registered versions whose lock has it."""
        return sorted({name for lock in self.locks for name in lock.versions})

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "scenario": self.scenario,
            "dataset": self.digest,
            "outputs": dict(self.outputs),
            "known_by": self.known,
            "in_dataset": self.in_dataset,
            "rows": self.rows,
            "versions": self.versions,
            "locks": [str(lock) for lock in self.locks],
        }


@dataclass
class Found:
    """What there is of a person.

    Attributes:
        mark: Keyed hash of them.
        key: Id of the key.
        data: Versions of the data that hold them.
        asked: How many versions of the data were asked.
        unknown: Versions of the data that nobody can ask any more: neither a usable sketch nor all bytes.
        follows: How many different outputs of each kind came of data sets that hold them.
        caches: Ids of the soft-label caches of those data sets.
        releases: Releases whose model was trained on them.
        live: Those of them that are live.
        golden: Path by MD5 of golden requests, in DVC's hands, that hold a stretch of their history.
        golden_of: Releases whose golden requests do.
        models: Path by MD5 of weights and models that came of them.
        erased: Versions of the data that held them, whose bytes are gone, as a receipt says.
        receipts: Those about them.
    """

    mark: str
    key: str
    data: list[DataVersion] = field(default_factory=list)
    asked: int = 0
    unknown: list[DataVersion] = field(default_factory=list)
    follows: dict[str, int] = field(default_factory=dict)
    caches: list[str] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    live: list[Release] = field(default_factory=list)
    golden: dict[str, str] = field(default_factory=dict)
    golden_of: list[Release] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    erased: list[DataVersion] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)

    @property
    def scenarios(self) -> list[str]:
        """Whose data hold the person."""
        return sorted({one.scenario for one in self.data})

    @property
    def datasets(self) -> set[str]:
        """Digests of the prepared data sets that hold them."""
        return {one.digest for one in self.data if one.in_dataset and one.digest}

    def golden_holds(self, content: bytes | None) -> bool:
        """Whether golden requests hold a stretch of the person's history; yes where nobody can tell any more."""
        from components.provenance.person_rows import repeats

        people = [one.person for one in self.data if one.person is not None]
        if content is None or any(one.known == "sketch alone" for one in self.data):
            return True
        try:
            histories = [list(request["history"]) for request in json.loads(content)["requests"]]
        except (ValueError, KeyError, TypeError):
            return True
        return any(repeats(history, person) for history in histories for person in people)


def find_person(
    places: Places, history: LockHistory, person: str, key: SubjectKey, say: Say, *, scenario: str | None = None
) -> Found:
    """Look for a person in every version of the data that a lock of this repository records.

    Args:
        places: Where bytes are.
        history: The locks.
        person: The source's id.
        key: Names people.
        say: Takes lines for whoever watches.
        scenario: Only its data; None: all.

    Raises:
        RecstillError: The store or DVC's remote cannot be read.
    """
    from components.provenance.subjects import sketch_id
    from flows.auditing.erased_objects import receipts_now

    found = Found(key.mark(person), key.id)
    found.receipts = [one for one in receipts_now(places.root, places.store) if one.subject == found.mark]
    told = {digest for receipt in found.receipts for digest in receipt.data}
    known = data_versions([*history.locks, *_of_releases(places, history)], scenario)
    for number, one in enumerate(known, start=1):
        _ask(places, one, person, key, say)
        # Whether it had a sketch or was known by its bytes: the receipt says that they were in it.
        if one.known in ("sketch alone", "unknown") and sketch_id(one.outputs) in told:
            one.known = "erased"
            found.erased.append(one)
        elif one.holds:
            found.data.append(one)
        elif one.known == "unknown":
            found.unknown.append(one)
        if number % 20 == 0 or number == len(known):
            say(f"{number} of {len(known)} versions of the data asked, {len(found.data)} hold the person")
    found.asked = len(known)
    if found.data:
        _follow(places, found)
    return found


def data_versions(locks: Iterable[Lock], scenario: str | None) -> list[DataVersion]:
    """Every version of the data that locks record, each once."""
    versions: dict[tuple[str, ...], DataVersion] = {}
    for lock in locks:
        recorded: dict[str, dict[str, str]] = defaultdict(dict)
        for run in lock.stages:
            recorded[run.scenario].update(run.outputs)
        for name, outputs in recorded.items():
            people = people_outputs(outputs.items())
            if people and scenario in (None, name):
                one = versions.setdefault((name, *sorted(people.values())), DataVersion(name, people))
                one.locks.append(lock)
    return list(versions.values())


def require_scenario(history: LockHistory, known: Iterable[str], name: str | None) -> None:
    """Refuse the name of a scenario that neither params.yaml nor any lock has: nobody would be found in its data.

    Raises:
        SettingsError: It is so.
    """
    from components.settings.base import nearest

    names = {*known, *(run.scenario for lock in history.locks for run in lock.stages)} if name is not None else set()
    if name is not None and name not in names:
        raise SettingsError(f"unknown scenario {name!r}; {nearest(name, sorted(names))}")


def _of_releases(places: Places, history: LockHistory) -> list[Lock]:
    """The locks of releases whose commit no branch or tag here has: by that commit, else as their statements say."""
    from flows.auditing.records import of_statements
    from flows.auditing.shelf import Shelf

    shelf = Shelf(places.store, trusted(places.root))
    known = {id(lock) for lock in history.locks}
    at = history.at([release.commit for release in shelf.releases if release.commit])
    found = []
    for release in shelf.releases:
        lock = at.get(release.commit)
        if lock is None and not release.problem:
            lock = of_statements(shelf.bundled(release), f"the signed statements of {release}")
        if lock is not None and id(lock) not in known:
            known.add(id(lock))
            found.append(lock)
    return found


def descendants(lineage: Lineage, starts: set[str]) -> dict[str, str]:
    """Path by MD5 of every output that any lock records as made from some outputs, directly or not.

    That of a teacher which started from one that was is among them.
    """
    from flows.auditing.impact import impact
    from flows.auditing.resolving import resolve

    lineage.history.at([release.commit for release in lineage.shelf.releases if release.commit])
    for release in lineage.shelf.releases:
        lineage.lock_of(release)
    digests = {digest for md5 in starts for digest in impact(lineage, resolve(lineage, md5)).digests}
    runs = (run for lock in lineage.records.locks for run in lock.stages)
    made = {md5: path for run in runs for path, md5 in run.outputs.items() if md5.removesuffix(FOLDER) in digests}
    return {md5: path for md5, path in made.items() if md5 not in starts}


def _ask(places: Places, one: DataVersion, person: str, key: SubjectKey, say: Say) -> None:
    from components.provenance.subjects import read_sketch

    sketched: bool | None = None
    try:
        if sketch := read_sketch(places.store, one.outputs):
            sketched = sketch.holds(person, key)
            one.digest = sketch.dataset
    except (IntegrityError, SettingsError) as error:  # damaged, forged, or of another key: the bytes tell
        say(f"{error.message}: its bytes are asked instead")
        sketched = None
    if sketched is False:
        one.known = "sketch and bytes"
        return
    with tempfile.TemporaryDirectory(dir=places.scratch) as scratch:
        whole = _read(places, one, person, Path(scratch))
    if one.holds:
        one.known = "bytes" if sketched is None else "sketch and bytes"
    elif sketched:
        # It says so, and what is left of the bytes does not: they are gone, here at least.
        one.holds, one.in_dataset, one.known = True, True, "sketch alone"
    else:
        one.known = "bytes" if whole else "unknown"


def _read(places: Places, one: DataVersion, person: str, scratch: Path) -> bool:
    """Fill in what the bytes say; whether all of them are to be had."""
    from components.provenance.person_rows import person_rows

    whole = True
    base = next(iter(one.outputs)).rpartition("/")[0]
    for path, md5 in one.outputs.items():
        files = places.files(md5, path)
        whole &= bool(files)
        for name, each in files.items():
            whole &= places.fetch(each, scratch / name.removeprefix(f"{base}/"))
    record = scratch / _DATASET / "dataset.json"
    if record.is_file():
        one.digest = one.digest or str(json.loads(record.read_bytes()).get("digest", ""))
    rows = person_rows(scratch, person)
    one.person, one.rows = rows, rows.rows
    for name in rows.files:
        md5 = file_md5(scratch / name)
        one.files[md5] = f"{base}/{name}"
        one.sha256[md5] = file_digest(scratch / name)
    one.holds = bool(rows.files)
    one.in_dataset = any(name.startswith(f"{_DATASET}/") for name in rows.files)
    return whole


def _follow(places: Places, found: Found) -> None:
    """What came of the data: by the locks, and in the store."""
    from components.soft_labels.inventory import read_caches
    from flows.auditing.lineage import Lineage

    starts = {md5 for one in found.data if one.in_dataset for md5 in one.outputs.values() if md5.endswith(FOLDER)}
    made = descendants(Lineage(places.root, places.store), starts) if starts else {}
    kinds: dict[str, int] = defaultdict(int)
    for md5, path in made.items():
        kinds[path.split("/")[2]] += 1
        for name, each in places.files(md5, path).items():
            if name.endswith(MODELS):
                found.models[each] = name
            elif name.endswith(f"/package/{GOLDEN}") and found.golden_holds(places.read(each)):
                found.golden[each] = name
    found.follows = dict(sorted(kinds.items()))
    found.caches = [
        cache.id for cache in read_caches(places.store) if cache.manifest and cache.manifest.dataset in found.datasets
    ]
    _releases(places, found)


def _releases(places: Places, found: Found) -> None:
    from components.serving.pointer import current
    from components.serving.releases import names, read_release, versions

    keys, store = trusted(places.root), places.store
    for name in names(store):
        live = current(store, name, keys)
        for number in versions(store, name):
            try:
                release = read_release(store, name, number, keys)
            except RecstillError:  # damaged or forged: `recstill verify` tells of it
                continue
            if release.lineage.get(_DATASET) not in found.datasets:
                continue
            found.releases.append(release)
            if live is not None and live.version == number:
                found.live.append(release)
            if found.golden_holds(_stored(places, release)):
                found.golden_of.append(release)


def _stored(places: Places, release: Release) -> bytes | None:
    try:
        return places.store.get(release.key(GOLDEN), release.files.get(GOLDEN))
    except RecstillError:  # gone, or damaged
        return None
