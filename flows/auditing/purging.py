"""Which objects hold a person, and deleting them: planned, written down, deleted, told in a signed receipt.

What is to go is written into ``.recstill/erasures/<keyed hash>.json`` before the first object goes, so that a call that
was killed anywhere goes on where it stopped, even though the bytes that told what to delete are gone by then.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.errors import IntegrityError, RecstillError
from components.provenance.receipts import Gone, Receipt, merged, now
from components.storage.atomic import write_json
from flows.auditing.erased_objects import keep_receipt
from flows.auditing.lock_history import LockHistory
from flows.auditing.person_plan import GOLDEN, MODELS, Found
from flows.auditing.places import READER_CACHE, Places, by_md5, left_behind
from flows.locked_outputs import FOLDER, LOCK, file_md5
from flows.repository import identity, main_checkout
from flows.trust import signer

ERASURES = ".recstill/erasures"
_TABLE = b"PAR1"
_FORMAT = 1
# Work trees first: whoever runs there meanwhile must not push what is deleted. DVC's remote last: it is the last copy.
_ORDER = ("tree", "reader", "cache", "store", "remote")
_HOLDERS = (
    "events.parquet",
    "rejected.parquet",
    "users.parquet",
    "train.parquet",
    "validation.parquet",
    "test.parquet",
)


@dataclass(frozen=True)
class Target:
    """One object that is to go.

    Attributes:
        gone: What the receipt will say of it.
        path: Of a file in a work tree or a reader's cache; empty for others.
        bytes: Its size.
        step: Of two of one place, the one with the lower step goes first.
    """

    gone: Gone
    path: str = ""
    bytes: int = 0
    step: int = 0


@dataclass
class Erasure:
    """What is to be done for a person.

    Attributes:
        mark: Keyed hash of them.
        key: Id of the key.
        data: Digests of the data that hold them: of sketches and of prepared data sets.
        targets: What is to go, in order.
        who: Who decided.
        why: Their reason.
        at: When it was confirmed, for the receipt.
    """

    mark: str
    key: str
    data: list[str]
    targets: list[Target]
    who: str = ""
    why: str = ""
    at: str = field(default_factory=now)


def planned(places: Places, history: LockHistory, found: Found, person: str, *, models: bool) -> Erasure:
    """What is to go, in order. Nothing is deleted.

    Args:
        places: Where bytes are.
        history: The locks.
        found: What there is of the person.
        person: The source's id.
        models: Whether weights and models that were trained on them are to go too.

    Raises:
        RecstillError: A place cannot be read.
    """
    from components.provenance.subjects import sketch_id

    wanted = _wanted(places, found, models)
    targets = [
        *_in_trees(places, wanted, person, models),
        *_in_dvc(places, wanted),
        *_named_by_no_lock(places, history, person, set(wanted)),
        *_soft_labels(places, found),
        *_labels_made_again(places, found),
        *_packages(places, found, models),
    ]
    data = sorted({sketch_id(one.outputs) for one in found.data} | found.datasets)
    return Erasure(found.mark, found.key, data, in_order(targets))


def journal_of(root: Path, mark: str) -> Path:
    """Where an erasure that has begun is written down."""
    return main_checkout(root) / ERASURES / f"{mark}.json"


def begun(root: Path, mark: str) -> Erasure | None:
    """An erasure that was begun and has not ended; None when there is none.

    Raises:
        IntegrityError: What was written down is damaged.
    """
    path = journal_of(root, mark)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_bytes())
        if record["format"] != _FORMAT or record["mark"] != mark:
            raise ValueError
        targets = [
            Target(
                Gone(one["place"], one["name"], tuple(one["digests"]), one["what"]),
                one["path"],
                one["bytes"],
                one["step"],
            )
            for one in record["targets"]
        ]
        return Erasure(mark, record["key"], record["data"], targets, record["who"], record["why"], record["at"])
    except (ValueError, KeyError, TypeError):
        raise IntegrityError(
            f"{path} is damaged: an erasure was begun, and what it was to delete is not known any more",
            "Delete that file and run `recstill erase` again: it looks for what is left.",
        ) from None


def carry_out(
    places: Places, erasure: Erasure, advance: Callable[[Target], None], *, why: str = ""
) -> tuple[Receipt | None, list[Target]]:
    """Write the plan down, delete, look again, and write the receipt.

    Args:
        places: Where bytes are.
        erasure: What is to go; what an earlier call has begun is part of it.
        advance: Is told of each one that is gone.
        why: The reason, for the receipt.

    Returns:
        The receipt, and what is there again all the same: nothing, unless somebody is writing it anew. Then there is
        no receipt, since it would not be true.

    Raises:
        RecstillError: A place cannot be written. What was written down stays: the same call goes on.
    """
    root = places.root
    key = signer(root, "nobody could check the receipt")
    earlier = begun(root, erasure.mark)
    if earlier is not None:
        both = in_order([*earlier.targets, *erasure.targets])
        erasure = Erasure(
            erasure.mark,
            erasure.key,
            sorted({*earlier.data, *erasure.data}),
            both,
            earlier.who,
            earlier.why,
            earlier.at,
        )
    else:
        erasure.who, erasure.why = identity(root).name, why
    _write_down(root, erasure)
    for target in erasure.targets:
        delete(places, target)
        advance(target)
    left = [target for target in erasure.targets if is_there(places, target)]
    if left:
        return None, left
    receipt = keep_receipt(root, places.store, _receipt(erasure), key)
    journal_of(root, erasure.mark).unlink(missing_ok=True)
    return receipt, []


def in_order(targets: Iterable[Target]) -> list[Target]:
    """Targets in the order in which they go, each once."""
    found = {(one.gone.place, one.gone.name, one.path): one for one in targets}
    return sorted(found.values(), key=lambda one: (_ORDER.index(one.gone.place), one.step, one.gone.name, one.path))


def delete(places: Places, target: Target) -> None:
    """Delete one object; one that is not there is no error.

    Raises:
        RecstillError: It cannot be deleted.
    """
    place, name = target.gone.place, target.gone.name
    if place in ("tree", "reader"):
        try:
            Path(target.path).unlink(missing_ok=True)
        except OSError as error:
            raise RecstillError(
                f"{target.path} cannot be deleted: {error.strerror}", "Check its permissions."
            ) from None
    elif place == "store":
        places.store.delete(name)
    elif place == "remote":
        places.remote.delete(name)
    else:
        for cache in places.caches:
            cache.delete(name)


def is_there(places: Places, target: Target) -> bool:
    """Whether an object is still, or again, there."""
    place, name = target.gone.place, target.gone.name
    if place in ("tree", "reader"):
        return Path(target.path).is_file()
    if place == "store":
        return places.store.size(name) is not None
    return any(one.has(name) for one in ([places.remote] if place == "remote" else places.caches))


def _wanted(places: Places, found: Found, models: bool) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Path and other digests by MD5, of the objects of DVC that are to go."""
    wanted: dict[str, tuple[str, tuple[str, ...]]] = {}
    for one in found.data:
        for md5, path in one.files.items():
            wanted[md5] = (path, (one.sha256[md5],))
        if one.known == "sketch alone":  # whatever of it is still somewhere cannot be asked any more
            for path, md5 in one.outputs.items():
                files = places.files(md5, path)
                wanted.update({each: (name, ()) for name, each in files.items() if name.endswith(_HOLDERS)})
    wanted.update({md5: (path, ()) for md5, path in found.golden.items()})
    if models:
        wanted.update({md5: (path, ()) for md5, path in found.models.items()})
    return wanted


def _in_dvc(places: Places, wanted: Mapping[str, tuple[str, tuple[str, ...]]]) -> Iterator[Target]:
    for place, objects in [*(("cache", one) for one in places.caches), ("remote", places.remote)]:
        for md5, stored in objects.listed().items():
            if md5 in wanted:
                path, digests = wanted[md5]
                yield Target(Gone(place, md5, digests, path), "", stored.size)


def _named_by_no_lock(places: Places, history: LockHistory, person: str, known: set[str]) -> Iterator[Target]:
    """Data of runs whose lock was never kept: every object that no lock names is looked into."""
    from components.provenance.person_rows import person_rows

    named = {md5 for lock in history.locks for run in lock.stages for md5 in run.outputs.values()}
    named |= {each for md5 in named if md5.endswith(FOLDER) for each in places.files(md5, "").values()}
    for place, objects in [*(("cache", one) for one in places.caches), ("remote", places.remote)]:
        stored = objects.listed()
        strange = [md5 for md5 in stored if md5 not in named and md5 not in known]
        for md5 in sorted(strange, key=lambda name: not name.endswith(FOLDER)):
            with tempfile.TemporaryDirectory(dir=places.scratch) as scratch:
                folder = Path(scratch)
                files = places.files(md5, "dataset") if md5.endswith(FOLDER) else {"events.parquet": md5}
                if md5.endswith(FOLDER) and "dataset/users.parquet" not in files:
                    continue
                if not md5.endswith(FOLDER) and not objects.begins_with(md5, _TABLE):
                    continue
                for name, each in files.items():
                    places.fetch(each, folder / name)
                for name in person_rows(folder, person).files:
                    if files[name] in stored:
                        what = f"{name.rpartition('/')[2] if '/' in name else 'a table'}, named by no {LOCK}"
                        yield Target(Gone(place, files[name], (), what), "", stored[files[name]].size)


def _in_trees(
    places: Places, wanted: Mapping[str, tuple[str, tuple[str, ...]]], person: str, models: bool
) -> Iterator[Target]:
    from components.provenance.person_rows import person_rows

    suffixes = (".parquet", GOLDEN, *(MODELS if models else ()))
    for tree in places.trees:
        folders = [tree / "artifacts", *left_behind(tree)]
        for folder in folders:
            for md5, paths in by_md5(folder, suffixes).items():
                if md5 in wanted:
                    for path in paths:
                        yield _file(path, tree, md5, wanted[md5][1])
        # Data that no lock records yet: of a run that was interrupted.
        for folder in [*(tree / "artifacts").glob("*"), *(tree / ".recstill").glob("champion")]:
            for name in person_rows(folder, person).files if folder.is_dir() else ():
                yield _file(folder / name, tree, file_md5(folder / name), ())


def _soft_labels(places: Places, found: Found) -> Iterator[Target]:
    from components.soft_labels.inventory import read_caches

    for cache in read_caches(places.store):
        affected = cache.id in found.caches
        parts = {part.name: part for part in cache.manifest.parts} if cache.manifest else {}
        inputs = {} if affected else _inputs_of(places, cache.id, found.datasets)
        for entry in cache.objects:
            name = cache.name(entry)
            if not affected and not any(entry.key.startswith(folder) for folder in inputs):
                continue
            part = parts.get(name)
            digests = (part.sha256, part.content_sha256) if part else ()
            what = f"soft labels {cache.id[:12]}: {name}"
            step = cache.first_to_delete(entry)
            yield Target(Gone("store", entry.key, digests, what), "", entry.bytes, step)
        for part in parts.values() if affected else ():
            for tree in places.trees:
                path = tree / READER_CACHE / f"{part.content_sha256}.safetensors"
                if path.is_file():
                    gone = Gone("reader", part.content_sha256, (), f"soft labels {cache.id[:12]}: {part.name}")
                    yield Target(gone, str(path), path.stat().st_size)


def _labels_made_again(places: Places, found: Found) -> Iterator[Target]:
    """Soft labels in the stores that reproductions have of their own, where one was kept or killed."""
    for tree in places.trees:
        own = tree / ".recstill" / "store"
        if places.store.address == f"file://{own.resolve()}":
            continue
        for cache in found.caches:
            for path in sorted((own / "soft-labels" / cache).rglob("*")):
                if path.is_file():
                    yield _file(path, tree, file_md5(path), ())


def _inputs_of(places: Places, cache: str, datasets: set[str]) -> dict[str, str]:
    """Folders of a cache's inputs for workers elsewhere that hold one of some data sets."""
    found = {}
    for entry in places.store.list(f"soft-labels/{cache}/inputs/"):
        if entry.key.endswith("/dataset.json"):
            try:
                digest = str(json.loads(places.store.get(entry.key))["digest"])
            except (ValueError, KeyError, TypeError):
                continue
            if digest in datasets:
                found["/".join(entry.key.split("/")[:4]) + "/"] = digest
    return found


def _packages(places: Places, found: Found, models: bool) -> Iterator[Target]:
    for release in found.golden_of:
        yield from _stored(places, release.key(GOLDEN), (release.files.get(GOLDEN, ""),), f"{release}: {GOLDEN}")
    if not models:
        return
    for release in found.releases:
        for file, digest in release.files.items():
            if file.endswith(MODELS):
                yield from _stored(places, release.key(file), (digest,), f"{release}: {file}")
        if teacher := release.lineage.get("teacher"):
            # Its manifest first: nobody starts from a teacher that has none.
            for entry in places.store.list(f"teachers/{teacher}/"):
                step = 0 if entry.key.endswith("/manifest.json") else 1
                yield Target(Gone("store", entry.key, (), f"teacher {teacher[:12]}"), "", entry.bytes, step)


def _stored(places: Places, key: str, digests: tuple[str, ...], what: str) -> Iterator[Target]:
    size = places.store.size(key)
    if size is not None:
        yield Target(Gone("store", key, tuple(filter(None, digests)), what), "", size)


def _file(path: Path, tree: Path, md5: str, digests: tuple[str, ...]) -> Target:
    return Target(Gone("tree", md5, digests, path.relative_to(tree).as_posix()), str(path), path.stat().st_size)


def _write_down(root: Path, erasure: Erasure) -> None:
    record: dict[str, Any] = {
        "format": _FORMAT,
        "mark": erasure.mark,
        "key": erasure.key,
        "data": erasure.data,
        "who": erasure.who,
        "why": erasure.why,
        "at": erasure.at,
        "targets": [
            {**one.gone._asdict(), "path": one.path, "bytes": one.bytes, "step": one.step} for one in erasure.targets
        ],
    }
    path = journal_of(root, erasure.mark)
    write_json(path, record)
    path.chmod(0o600)


def _receipt(erasure: Erasure) -> Receipt:
    objects = merged(one.gone for one in erasure.targets)
    return Receipt(
        0, "erasure", erasure.mark, erasure.key, tuple(erasure.data), objects, erasure.who, erasure.why, erasure.at
    )
