"""Who is in a data set, without a list of people: a sketch of keyed names, kept in the store beside every version.

``subjects/<id>.json``. The id is a digest over the MD5s of the files that hold people, as ``dvc.lock`` records them,
so that whoever has a lock finds the sketch. It holds the keyed name of everybody in the events, in the rejected rows
and in the prepared data set, sorted, and the id of the key. Without the key it says how many people there are, and no
more. It is sealed with that key: a sketch that somebody else has written would hide people, and counts for nothing.
"""

from __future__ import annotations

import base64
import bisect
import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from components.data.subject_key import MARK_BYTES, SUBJECT_VARIABLE, SubjectKey
from components.errors import DataError, IntegrityError, SettingsError
from components.storage.contract import MissingObjectError, ObjectStore
from components.storage.digests import record_digest

PREFIX = "subjects/"
_FORMAT = 2
_WHOLE = re.compile(r"(-?\d+)\.0+")


@dataclass(frozen=True)
class Sketch:
    """Who is in one version of the data.

    Attributes:
        scenario: Whose data.
        outputs: MD5 by path, of the outputs that hold people.
        dataset: Digest of the prepared data set; empty when it was not there.
        attached: ``during the run``, or ``afterwards``.
        key: Id of the key.
        count: How many people there are.
        marks: Their keyed names, sorted, 12 bytes each.
        seal: What only the holder of the key can write under all of that.
    """

    scenario: str
    outputs: Mapping[str, str]
    dataset: str
    attached: str
    key: str
    count: int
    marks: bytes = field(repr=False)
    seal: str = ""

    @property
    def id(self) -> str:
        """What names it."""
        return sketch_id(self.outputs)

    def holds(self, person: str, key: SubjectKey) -> bool:
        """Whether a person is in the data.

        Raises:
            SettingsError: The sketch was made with another key.
            IntegrityError: Nobody who has the key has made it like this.
        """
        if key.id != self.key:
            raise SettingsError(
                f"the sketch of who is in a data set of {self.scenario} was made with key {self.key}, and the key here "
                f"is {key.id}: nobody can be looked for in it",
                f"Set {SUBJECT_VARIABLE} to that key, from the machine that made the version.",
            )
        if not hmac.compare_digest(self.seal, _seal_of(self, key)):
            raise IntegrityError(
                f"{sketch_key(self.outputs)} was not made like this by anybody who has the key {self.key}: it may hide "
                "people",
                "Delete it; it is made again.",
            )
        wanted = bytes.fromhex(key.mark(person))
        place = bisect.bisect_left(range(self.count), wanted, key=self._at)
        return place < self.count and self._at(place) == wanted

    def _at(self, place: int) -> bytes:
        return self.marks[place * MARK_BYTES : (place + 1) * MARK_BYTES]


def people_in(folder: Path) -> set[str]:
    """The ids of everybody whose rows lie in ``artifacts/<scenario>``: events, rejected rows, users of the data set.

    Files that are not there are passed over. An id of a rejected row is taken as it stands there and, when it is a
    whole number with a decimal point, as ingest would read it.

    Raises:
        IntegrityError: A file is damaged.
    """
    found: set[str] = set()
    for name, column in (("events.parquet", "user"), ("rejected.parquet", "user"), ("dataset/users.parquet", "id")):
        path = folder / name
        if not path.is_file():
            continue
        try:
            own = pl.col(column).drop_nulls().unique().cast(pl.String)
            ids = pl.scan_parquet(path).select(own).collect(engine="streaming")[column].to_list()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise IntegrityError(f"{path} is damaged: {error}", "Put it back from a copy, or run again.") from None
        found.update(ids)
        if name.startswith("rejected"):
            found.update(whole[1] for one in ids if (whole := _WHOLE.fullmatch(one)))
    return found


def sketch_of(
    folder: Path, outputs: Mapping[str, str], key: SubjectKey, *, scenario: str, dataset: str, attached: str
) -> Sketch:
    """The sketch of what lies in ``artifacts/<scenario>``.

    Args:
        folder: Where the files are.
        outputs: MD5 by path of the outputs that hold people, as the lock has them.
        key: Names people.
        scenario: Whose data.
        dataset: Digest of the prepared data set.
        attached: ``during the run`` or ``afterwards``.

    Raises:
        DataError: None of the files is there, or not all of them.
        IntegrityError: A file is damaged.
    """
    people = people_in(folder)
    if not people:
        raise DataError(f"{folder} holds nobody's events", "Run the scenario first.")
    if lost := sorted(path for path in outputs if not (folder / path.rpartition("/")[2]).exists()):
        raise DataError(f"{', '.join(lost)} is not in {folder}: whoever is in it alone would be hidden", "Run again.")
    marks = sorted({bytes.fromhex(key.mark(person)) for person in people})
    sketch = Sketch(scenario, dict(outputs), dataset, attached, key.id, len(marks), b"".join(marks))
    return replace(sketch, seal=_seal_of(sketch, key))


def sketch_id(outputs: Mapping[str, str]) -> str:
    """What names the sketch of data: a digest over the MD5s of the outputs that hold people, in any scenario."""
    return record_digest(sorted(outputs.values()))


def sketch_key(outputs: Mapping[str, str]) -> str:
    """Where a sketch lies in the store."""
    return f"{PREFIX}{sketch_id(outputs)}.json"


def publish_sketch(store: ObjectStore, sketch: Sketch) -> bool:
    """Keep a sketch, unless the data have one; whether this call wrote it.

    Raises:
        StorageError: The store cannot be written.
    """
    marks = base64.b64encode(sketch.marks).decode()
    document = {**_told(sketch), "marks": marks, "seal": sketch.seal}
    content = (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
    return store.put_if_absent(sketch_key(sketch.outputs), content, hashlib.sha256(content).hexdigest())


def read_sketch(store: ObjectStore, outputs: Mapping[str, str]) -> Sketch | None:
    """The sketch of data; None when it has none.

    Raises:
        IntegrityError: It is damaged, or of other data.
        StorageError: The store cannot be read.
    """
    where = sketch_key(outputs)
    try:
        found = _parsed(store.get(where), where)
    except MissingObjectError:
        return None
    if found.id != sketch_id(outputs):
        raise IntegrityError(f"{where} in {store.address} is the sketch of other data", "Delete it; it is made again.")
    return found


def read_sketches(store: ObjectStore) -> Iterator[Sketch]:
    """All sketches of a store.

    Raises:
        IntegrityError: One is damaged.
        StorageError: The store cannot be read.
    """
    for entry in store.list(PREFIX):
        yield _parsed(store.get(entry.key), entry.key)


def marks_of(people: Iterable[str], key: SubjectKey) -> list[str]:
    """Keyed names, sorted, for a list in params.yaml or a receipt."""
    return sorted({key.mark(person) for person in people})


def _told(sketch: Sketch) -> dict[str, Any]:
    """All of a sketch; of its marks the digest."""
    return {
        "format": _FORMAT,
        "scenario": sketch.scenario,
        "outputs": dict(sketch.outputs),
        "dataset": sketch.dataset,
        "attached": sketch.attached,
        "key": sketch.key,
        "count": sketch.count,
        "sha256": hashlib.sha256(sketch.marks).hexdigest(),
    }


def _seal_of(sketch: Sketch, key: SubjectKey) -> str:
    return key.seal(json.dumps(_told(sketch), sort_keys=True).encode())


def _parsed(content: bytes, where: str) -> Sketch:
    try:
        document = json.loads(content)
        marks = base64.b64decode(document["marks"], validate=True)
        sketch = Sketch(
            scenario=str(document["scenario"]),
            outputs={str(path): str(md5) for path, md5 in document["outputs"].items()},
            dataset=str(document["dataset"]),
            attached=str(document["attached"]),
            key=str(document["key"]),
            count=int(document["count"]),
            marks=marks,
            seal=str(document["seal"]),
        )
        whole = hashlib.sha256(marks).hexdigest() == document["sha256"] and len(marks) == MARK_BYTES * sketch.count
        if document["format"] != _FORMAT or not whole:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise IntegrityError(f"{where} is damaged: it is no sketch", "Delete it; it is made again.") from None
    return sketch
