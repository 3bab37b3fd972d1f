"""What a signed log cannot tell of itself: that its newest entries were taken away, or all of it was replaced.

This checkout remembers how far each log went when it last looked, in ``.recstill/witness.json``; and the message of
every stage tag in git names the switch that it shows. A log that has not got what one of them names was cut.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

from components.errors import IntegrityError
from components.provenance.signed_log import SignedLog, anchor_problem
from components.storage.atomic import write_json
from components.storage.contract import ObjectStore
from flows.registry import STAGE
from flows.repository import git, is_repository, main_checkout, without_credentials
from flows.trust import trusted

WITNESS = ".recstill/witness.json"
_FORMAT = 1
_ANCHOR = re.compile(r"^switch: ([1-9]\d*) sha256:([0-9a-f]{64})$", re.MULTILINE)


class Anchor(NamedTuple):
    """What a stage tag says of the switch that it shows.

    Attributes:
        tag: The tag.
        number: Of the switch.
        digest: SHA-256 of its envelope.
    """

    tag: str
    number: int
    digest: str


def check_and_remember(root: Path, store: ObjectStore, log: SignedLog) -> str | None:
    """Hold a log against what this checkout remembers of it, and remember what is newer.

    Args:
        root: The checkout, or a worktree of it.
        store: Where the log lies.
        log: Which.

    Returns:
        What is wrong, in a sentence: the log was cut, replaced, or its end is not right. None when all is well.

    Raises:
        StorageError: The store cannot be read, or the witness not written.
        SettingsError: There is no key to trust.
    """
    known = _read(main_checkout(root) / WITNESS).get(without_credentials(store.address), {}).get(log.prefix)
    known = known or {"number": 0, "digest": ""}
    if problem := anchor_problem(log, known["number"], known["digest"]):
        return f"{problem}; {WITNESS} remembers it"
    try:
        # What is remembered was checked when it was remembered, and has not changed.
        if log.newest() == known["number"]:
            return None
        head = log.head(trusted(root))
    except IntegrityError as error:
        return error.message
    if head is not None:
        remember(root, store, log, head.number, head.digest)
    return None


def remember(root: Path, store: ObjectStore, log: SignedLog, number: int, digest: str) -> None:
    """Remember an entry that was checked, or written here, unless a newer one is remembered already.

    Raises:
        StorageError: The witness cannot be written.
    """
    path = main_checkout(root) / WITNESS
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        logs = _read(path)
        of_store = logs.setdefault(without_credentials(store.address), {})
        if number > of_store.get(log.prefix, {"number": 0})["number"]:
            of_store[log.prefix] = {"number": number, "digest": digest}
            write_json(path, {"format": _FORMAT, "logs": logs})
    finally:
        os.close(handle)


def anchor_of(number: int, digest: str) -> str:
    """The line of a stage tag's message that names its switch."""
    return f"switch: {number} sha256:{digest}"


def anchors(root: Path, name: str) -> list[Anchor]:
    """What the stage tags of a model say of its switches, by the numbers of the switches.

    Tags from before switches were signed say nothing, and are left out.
    """
    if not is_repository(root):
        return []
    form = "%(objecttype)%00%(refname:strip=2)%00%(contents)%00%00"
    found = []
    for row in git(root, "for-each-ref", f"--format={form}", f"refs/tags/{name}#{STAGE}#*").split("\0\0"):
        kind, _, rest = row.strip("\n").partition("\0")
        tag, _, message = rest.partition("\0")
        # The last line of that form: the reason before it may say anything.
        if kind == "tag" and (lines := _ANCHOR.findall(message)):
            found.append(Anchor(tag, int(lines[-1][0]), lines[-1][1]))
    return sorted(found, key=lambda one: one.number)


def anchor_problems(root: Path, name: str, log: SignedLog) -> list[str]:
    """Stage tags that name a switch which the log has not got: the log was cut, or the tag is forged.

    Raises:
        StorageError: The store cannot be read.
    """
    found = []
    for one in anchors(root, name):
        if problem := anchor_problem(log, one.number, one.digest):
            found.append(f"{problem}; the tag {one.tag} names it")
    return found


def _read(path: Path) -> dict[str, Any]:
    """What the file remembers.

    Raises:
        IntegrityError: It is damaged: nothing can be held against it then.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
        logs = record["logs"]
        sane = record["format"] == _FORMAT and all(
            isinstance(one["number"], int) and isinstance(one["digest"], str)
            for store in logs.values()
            for one in store.values()
        )
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        sane, logs = False, {}
    if not sane:
        raise IntegrityError(f"{path} is damaged", "Delete it: what the logs say now is taken for right from then on.")
    return dict(logs)
