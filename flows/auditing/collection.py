"""Deleting what nobody needs, in two steps: a plan with a date, and later exactly that plan, looked at once more."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from components.errors import DataError, IntegrityError
from components.provenance.receipts import Gone, Receipt, merged
from components.storage.atomic import write_json
from components.storage.digests import record_digest
from flows.auditing.erased_objects import keep_receipt
from flows.auditing.needed import Needed, needed, require_known
from flows.auditing.places import REPRODUCED, Places
from flows.auditing.standing_still import is_made_again, no_retraining
from flows.locked_outputs import FOLDER
from flows.repository import identity, main_checkout
from flows.trust import signer
from flows.worktrees import remove_worktree

PLANS = ".recstill/gc"
_FORMAT = 1
_SHOWN = 12
# Work trees first: what they alone need is unneeded at the next look. Of a folder of DVC the listing goes first.
_ORDER = ("tree", "store", "cache", "remote")
_WORKTREES = ".recstill/worktrees"


@dataclass(frozen=True)
class Unneeded:
    """One object that nobody needs.

    Attributes:
        place: ``tree``, ``store``, ``cache`` or ``remote``.
        name: A folder of a work tree from the checkout's root, a key of the store, an MD5 of DVC.
        why: The reason.
        bytes: Its size; 0 where it is not known.
        step: Of two of one place, the one with the lower step goes first.
    """

    place: str
    name: str
    why: str
    bytes: int
    step: int = 0


@dataclass(frozen=True)
class Plan:
    """What is to be deleted.

    Attributes:
        created: When it was made, ISO 8601, UTC.
        objects: In the order in which they go.
    """

    created: str
    objects: tuple[Unneeded, ...]

    @property
    def id(self) -> str:
        """Digest over all of it."""
        return record_digest({"created": self.created, "objects": [vars(one) for one in self.objects]})

    @property
    def bytes(self) -> int:
        """Bytes that it frees."""
        return sum(one.bytes for one in self.objects)

    def ripe(self, wait: timedelta) -> datetime:
        """From when on it may be carried out."""
        return datetime.fromisoformat(self.created) + wait


@dataclass(frozen=True)
class Collected:
    """What came of a plan.

    Attributes:
        gone: Objects of the plan that are gone.
        kept: Those that are needed by now, or have been written again.
        receipt: That says so; None when nothing is gone.
    """

    gone: tuple[Unneeded, ...]
    kept: tuple[Unneeded, ...]
    receipt: Receipt | None


def unneeded(places: Places, *, older_than: timedelta) -> list[Unneeded]:
    """Everything that nobody needs now. Nothing is deleted.

    Args:
        places: Where bytes are.
        older_than: What was written later is left alone: a run may be about to record it.

    Raises:
        RecstillError: It is not known what is needed, or a place cannot be read.
    """
    before = time.time() - older_than.total_seconds()
    now = needed(places)
    require_known(now)
    found = [
        *_trees(places.root, before),
        *_of_dvc(places, now, before),
        *_soft_labels(places, now, before),
        *_packages(places, now, before),
    ]
    return sorted(found, key=lambda one: (_ORDER.index(one.place), one.step, one.name))


def write_plan(root: Path, objects: list[Unneeded]) -> Plan:
    """Write a plan down, so that it can be carried out later."""
    plan = Plan(datetime.now(UTC).isoformat(timespec="seconds"), tuple(objects))
    record = {"format": _FORMAT, "created": plan.created, "objects": [vars(one) for one in plan.objects]}
    write_json(_folder(root) / f"{plan.id}.json", record)
    return plan


def read_plan(root: Path, text: str) -> Plan:
    """The plan whose digest begins with ``text``.

    Raises:
        DataError: There is none, or more than one.
        IntegrityError: It was changed since it was made.
    """
    paths = [path for path in sorted(_folder(root).glob("*.json")) if path.stem.startswith(text) and len(text) >= 6]
    if len(paths) != 1:
        known = ", ".join(path.stem[:_SHOWN] for path in sorted(_folder(root).glob("*.json"))) or "none"
        raise DataError(f"{text!r} names {len(paths)} plans", f"Plans here: {known}. `recstill gc` makes one.")
    try:
        record: dict[str, Any] = json.loads(paths[0].read_bytes())
        plan = Plan(str(record["created"]), tuple(Unneeded(**one) for one in record["objects"]))
        plan.ripe(timedelta())
    except (ValueError, KeyError, TypeError):
        raise IntegrityError(f"{paths[0]} is damaged: it is no plan", "Delete it and make another.") from None
    if plan.id != paths[0].stem:
        raise IntegrityError(f"{paths[0]} is not the plan that was made: it was changed since", "Make another.")
    return plan


def collect(
    places: Places, plan: Plan, *, older_than: timedelta, scenarios: list[str], advance: Callable[[Unneeded], None]
) -> Collected:
    """Delete what a plan names and nobody needs still, and write a receipt. Interrupted, the same call goes on.

    Args:
        places: Where bytes are.
        plan: Which.
        older_than: As in :func:`unneeded`.
        scenarios: Those of the checkout: none of them may be retrained meanwhile.
        advance: Is told of each that is gone.

    Raises:
        BusyError: A retraining is at work.
        RecstillError: It is not known what is needed, or a place cannot be written.
    """
    root = places.root
    key = signer(root, "nobody could check the receipt")
    # A retraining may take old objects up again, from a run that it remembers.
    with no_retraining(places, scenarios):
        still = {(one.place, one.name) for one in unneeded(places, older_than=older_than)}
        for one in plan.objects:
            if (one.place, one.name) in still:
                _delete(places, one)
                advance(one)
        gone = tuple(one for one in plan.objects if not _is_there(places, one))
        kept = tuple(one for one in plan.objects if one not in gone)
    receipt = None
    if gone:
        objects = merged(Gone(one.place, one.name, (), one.why) for one in gone)
        who = identity(root).name
        why = f"plan {plan.id}"
        draft = Receipt(0, "collection", "", "", (), objects, who, why, plan.created)
        receipt = keep_receipt(root, places.store, draft, key)
    (_folder(root) / f"{plan.id}.json").unlink(missing_ok=True)
    return Collected(gone, kept, receipt)


def _of_dvc(places: Places, now: Needed, before: float) -> Iterator[Unneeded]:
    seen: set[tuple[str, str]] = set()
    for place, objects in [*(("cache", one) for one in places.caches), ("remote", places.remote)]:
        for md5, stored in objects.listed().items():
            if now.is_needed(md5) or (place, md5) in seen or objects.written(md5) >= before:
                continue
            seen.add((place, md5))
            why = "no version, branch, tag or work tree names it"
            yield Unneeded(place, md5, why, stored.size, 0 if md5.endswith(FOLDER) else 1)


def _soft_labels(places: Places, now: Needed, before: float) -> Iterator[Unneeded]:
    from components.soft_labels.collecting import unreachable
    from flows.cache_use import survey

    caches, usage = survey(places.root, places.store)
    if usage.unknown(versions=True) or usage.unknown(versions=False):
        return
    found = unreachable(
        places.store,
        [cache for cache in caches if cache.id not in now.recalled],
        before=before,
        untouchable=usage.is_pinned,
        unreferenced=lambda cache: not usage.of(cache.id),
    )
    for one in found:
        if not one.leftover:
            yield Unneeded("store", one.entry.key, one.reason, one.entry.bytes, one.step)


def _packages(places: Places, now: Needed, before: float) -> Iterator[Unneeded]:
    for entry in places.store.list("packages/"):
        package = entry.key.split("/")[1]
        if package not in now.packages and package not in now.recalled and entry.modified < before:
            yield Unneeded("store", entry.key, "no release has this package", entry.bytes)


def _trees(root: Path, before: float) -> Iterator[Unneeded]:
    """Work trees of reproductions that were kept, and of scenarios that params.yaml has no more."""
    from flows.params import read_params

    main = main_checkout(root)
    known = set(read_params(main).scenarios)
    for path in sorted((main / REPRODUCED).glob("*")):
        # The time of a folder is that of its first entries: a long reproduction looks old.
        if path.is_dir() and path.stat().st_mtime < before and not is_made_again(main, path.name):
            yield Unneeded("tree", path.relative_to(main).as_posix(), "a reproduction that was kept", 0)
    for path in sorted((main / _WORKTREES).glob("*")):
        if path.is_dir() and path.name.rpartition("-")[0] not in known and path.stat().st_mtime < before:
            yield Unneeded("tree", path.relative_to(main).as_posix(), "its scenario is not in params.yaml", 0)


def _delete(places: Places, one: Unneeded) -> None:
    if one.place == "tree":
        remove_worktree(main_checkout(places.root), main_checkout(places.root) / one.name)
    elif one.place == "store":
        places.store.delete(one.name)
    else:
        for objects in places.caches if one.place == "cache" else [places.remote]:
            objects.delete(one.name)


def _is_there(places: Places, one: Unneeded) -> bool:
    if one.place == "tree":
        return (main_checkout(places.root) / one.name).exists()
    if one.place == "store":
        return places.store.size(one.name) is not None
    return any(objects.has(one.name) for objects in (places.caches if one.place == "cache" else [places.remote]))


def _folder(root: Path) -> Path:
    return main_checkout(root) / PLANS
