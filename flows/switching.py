"""What is live: switching the pointer, going back, and the stage tags that show it in git.

The pointer in the store decides; a switch is one conditional write of a signed entry. Everything else follows from it
and can be made again. Order is by the switches' numbers and never by their times, since clocks jump.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from components.errors import IntegrityError, RecstillError
from components.storage.contract import MissingObjectError, ObjectStore
from flows.auditing.recalled import inherited, recalls_now, require_not_recalled
from flows.auditing.witness import WITNESS, anchor_of, check_and_remember, remember
from flows.repository import is_repository, store_of, without_credentials
from flows.trust import signer, trusted

if TYPE_CHECKING:
    from components.serving.pointer import Switch
    from components.serving.releases import Release

Say = Callable[[str], None]
_PROBLEMS_SHOWN = 3


class DeploymentError(RecstillError):
    """What is live stays as it is, and this says why."""


def release_of(root: Path, store: ObjectStore, name: str, version: int) -> Release:
    """A release whose signature is of a trusted key.

    Raises:
        DeploymentError: There is no such release, or its signature is of nobody who is trusted.
    """
    from components.serving.releases import read_release, versions

    try:
        return read_release(store, name, version, trusted(root))
    except MissingObjectError:
        known = versions(store, name)
        there = f"there are {', '.join(f'v{one}' for one in known[-5:])}" if known else "there is none of that name"
        raise DeploymentError(
            f"{name}@v{version} is not in {without_credentials(store.address)}: {there}",
            f"`recstill versions {name}` lists what can be deployed; RECSTILL_STORE says which store.",
        ) from None
    except IntegrityError as error:
        raise DeploymentError(f"{name}@v{version} is refused: {error.message}", error.remedy) from None


def live_switch(root: Path, store: ObjectStore, name: str) -> Switch | None:
    """What is live, the log of switches held against what this checkout remembers of it.

    Raises:
        DeploymentError: The log is not whole, or was cut: nothing may be built on it.
        StorageError: The store cannot be read.
    """
    from components.serving.pointer import current

    _require_whole(root, store, name)
    return current(store, name, trusted(root))


def _require_whole(root: Path, store: ObjectStore, name: str) -> None:
    from components.serving.pointer import switch_log

    if problem := check_and_remember(root, store, switch_log(store, name)):
        raise DeploymentError(
            f"what is live of {name} cannot be known: {problem}",
            "Put it back from a copy: `recstill verify --repair --from ADDRESS`. If the store was begun anew "
            f"on purpose, delete {WITNESS}.",
        )


def switch_to(
    root: Path,
    store: ObjectStore,
    release: Release,
    *,
    expected: int,
    kind: Literal["deploy", "rollback"],
    who: str,
    why: str,
) -> Switch:
    """Switch the pointer, if nobody else has since ``expected`` was read, and if nothing of the release is recalled.

    Raises:
        DeploymentError: Somebody has.
        RecalledError: It is recalled.
        SettingsError: The key that signs here is not trusted.
    """
    from components.serving.pointer import SwitchConflictError, switch, switch_log

    key = signer(root, "no service would heed the switch")
    keys = trusted(root)
    # Asked once more, as late as can be: the check of a version may have taken minutes, its approval a day.
    recalls = require_not_recalled(root, store, release, live_switch(root, store, release.name))
    try:
        done = switch(
            store,
            release.name,
            release,
            expected=expected,
            kind=kind,
            who=who,
            why=why,
            key=key,
            keys=keys,
            recalls=(recalls.number, recalls.digest),
        )
    except SwitchConflictError:
        live = live_switch(root, store, release.name)
        other = f"v{live.version} is live, by {live.who} at {live.at}" if live else "somebody switched"
        raise DeploymentError(
            f"another switch of {release.name} was faster than that to v{release.version}: {other}",
            f"Look at it (`recstill versions {release.name}`), then decide again; nothing was changed.",
        ) from None
    remember(root, store, switch_log(store, release.name), done.number, done.digest)
    return done


def before(history: Sequence[Switch]) -> int | None:
    """The version that a rollback goes back to: what was live before what is live, as one undo after the other.

    Deployments pile up and rollbacks take from the pile, so that two rollbacks go back two versions instead of to and
    fro. None when there is nothing below.
    """
    pile: list[int] = []
    for one in history:
        if one.kind == "rollback" and one.version in pile:
            while pile[-1] != one.version:
                pile.pop()
        elif not pile or pile[-1] != one.version:
            pile.append(one.version)
    return pile[-2] if len(pile) > 1 else None


def roll_back(root: Path, name: str, to: int | None, *, who: str, why: str, say: Say) -> Switch:
    """Switch back to a version that was live before, once its signature and every byte of it in the store are checked.

    Args:
        root: The checkout.
        name: Of the model.
        to: A version that was live once; None: the one before that which is live.
        who: Who does it.
        why: The reason.
        say: Takes lines for whoever watches.

    Raises:
        DeploymentError: There is nothing to go back to, it does not verify, or somebody switched meanwhile.
        RecalledError: It is recalled.
    """
    from components.provenance.recalls import RecalledError
    from components.serving.candidate import withdraw
    from components.serving.pointer import history
    from components.serving.releases import verify_release

    store = store_of(root)
    _require_whole(root, store, name)
    switches = history(store, name, trusted(root))
    if not switches:
        raise DeploymentError(
            f"no version of {name!r} has ever been live in {without_credentials(store.address)}",
            f"`recstill deploy {name}` deploys the newest.",
        )
    live = switches[-1]
    been = {one.version for one in switches}
    target = to if to is not None else before(switches)
    if target is None:
        raise DeploymentError(
            f"there is nothing to go back to: nothing was live of {name} before v{live.version} came",
            f"`recstill rollback {name} --to vN` goes to one that was live once, `recstill deploy {name}@vN` to any.",
        )
    if target == live.version:
        raise DeploymentError(f"{name}@v{target} is live already", f"`recstill versions {name}` lists the others.")
    if target not in been:
        raise DeploymentError(
            f"{name}@v{target} was never live: a rollback checks no answers and no speed",
            f"`recstill deploy {name}@v{target}` does.",
        )
    release = release_of(root, store, name, target)
    if found := inherited(store, release, recalls_now(root, store, live).recalls):
        left = _not_recalled(root, store, name, been - {live.version, target})
        raise RecalledError(
            f"{name}@v{target} is recalled: {found[0]}",
            f"Others that were live and are not: {', '.join(f'v{one}' for one in left)} (--to)."
            if left
            else "None that was live before is without a recall: deploy another version.",
        )
    if problems := verify_release(store, release):
        others = sorted(been - {live.version, target})
        remedy = (
            f"Others that were live: {', '.join(f'v{one}' for one in others)} (--to)." if others else "Deploy another."
        )
        raise DeploymentError(f"{name}@v{target} cannot be served: {'; '.join(problems[:_PROBLEMS_SHOWN])}", remedy)
    switched = switch_to(root, store, release, expected=live.number, kind="rollback", who=who, why=why)
    try:
        withdraw(store, name)  # whoever goes back wants nothing tried either
    except RecstillError as error:
        say(f"a trial may still run: {error.message}")
    return switched


def _not_recalled(root: Path, store: ObjectStore, name: str, versions: Iterable[int]) -> list[int]:
    """Those of some versions that can be read and have inherited no recall."""
    recalls = recalls_now(root, store).recalls
    found = []
    for version in sorted(versions):
        try:
            release = release_of(root, store, name, version)
            bad = inherited(store, release, recalls)
        except RecstillError:
            continue
        if not bad:
            found.append(version)
    return found


def mark_stage(root: Path, store: ObjectStore, name: str, say: Say, *, seconds: float = 20.0) -> None:
    """Make the stage tag of what is live, and push it. What cannot be done now, the next switch does.

    Args:
        root: The checkout. Outside of a repository there is nothing to do.
        store: What is live, it knows.
        name: Of the model.
        say: Takes a line for whoever watches.
        seconds: How long git's remote is waited for.
    """
    from components.serving.pointer import current
    from flows.registry import STAGE, assign, fetch_tags, newest_stage_tag, publish_tag, registered

    live = current(store, name, trusted(root))
    if live is None or not is_repository(root):
        return
    try:
        if live.version not in registered(root, name):
            fetch_tags(root, name, seconds=seconds)
        what = f"{name}@v{live.version} is {STAGE}: {live.kind} by {live.who}"
        message = f"{what}\n\n{live.why}\n\n{anchor_of(live.number, live.digest)}\n"
        if tag := assign(root, name, live.version, message):
            say(f"tagged {tag}")
        if newest := newest_stage_tag(root, name):
            publish_tag(root, newest, seconds=seconds)
    except RecstillError as error:
        say(f"git does not show yet what is live; the next switch mends that: {error.message}")


def tell_switch(store: ObjectStore, switch: Switch, say: Say) -> None:
    """Tell the Prefect server, if there is one, of a switch; its silence undoes nothing."""
    from flows.events import DEPLOYED, ROLLED_BACK, emit

    fields = ("version", "previous", "number", "attestation", "who", "why", "at")
    payload = {field: getattr(switch, field) for field in fields}
    event = DEPLOYED if switch.kind == "deploy" else ROLLED_BACK
    key = f"{without_credentials(store.address)}:{switch.number}:{switch.attestation}"
    try:
        emit(event, switch.name, payload, key=key)
    except RecstillError as error:
        say(error.message)
