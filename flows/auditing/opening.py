"""An audit begins: the places, the keys, the locks, and every version that anything names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from components.errors import SettingsError
from components.provenance.signing import PublicKey, trusted_keys
from flows.auditing.audited import Audited
from flows.auditing.hashing import Places
from flows.auditing.lock_history import LockHistory
from flows.auditing.logs import live_attestations
from flows.auditing.registered import Version, read_tags, registered_versions
from flows.registry import parsed, shown
from flows.remote_objects import StoredBytes, remote_objects
from flows.repository import keys_of, store_of


@contextmanager
def opened_audit(root: Path, targets: Sequence[str] = ()) -> Iterator[Audited]:
    """Open store and remote, and find out which versions are registered; nothing is checked yet but attestations.

    Args:
        root: The checkout.
        targets: ``movielens@v3``, or ``movielens`` for all of its versions; none: everything.

    Raises:
        StorageError: The store or DVC's remote cannot be read.
        SettingsError: A target is not registered, or a key cannot be read.
    """
    store = store_of(root)
    in_store = {one.key: StoredBytes(one.bytes, repr(one.modified)) for one in store.list("")}
    tags = read_tags(root)
    keys = _keys(root)
    versions = registered_versions(store, keys, tags, in_store, live_attestations(store, in_store, keys))
    locks = LockHistory.read(root)
    has = locks.has_commits([version.commit for version in versions if version.commit])
    for version in versions:
        version.here = has.get(version.commit or "", False)
    chosen = _chosen(versions, targets)
    with ExitStack() as opened:
        remote, in_remote = None, {}
        if any(version.here for version in chosen):
            remote = opened.enter_context(remote_objects(root))
            in_remote = remote.listed()
        places = Places(store, remote, in_store, in_remote)
        yield Audited(root, places, keys, tags, versions, chosen, not targets, locks)


def _keys(root: Path) -> Sequence[PublicKey]:
    """Those that are trusted; with none, no signature counts, which every signed record then tells.

    Raises:
        SettingsError: One that is named cannot be read.
    """
    try:
        return trusted_keys(keys_of(root))
    except SettingsError as error:
        if not error.message.startswith("no key is trusted"):
            raise
        return ()


def _chosen(versions: Sequence[Version], targets: Sequence[str]) -> list[Version]:
    if not targets:
        return list(versions)
    found: dict[str, Version] = {}
    for target in targets:
        name, number = parsed(target)
        of = [version for version in versions if version.name == name and number in (None, version.number)]
        if not of:
            known = ", ".join(str(version) for version in versions[-5:]) or "none"
            asked = name if number is None else shown(name, number)
            raise SettingsError(f"{asked} is not registered here", f"Registered: {known}.")
        found.update((str(version), version) for version in of)
    return [found[name] for name in sorted(found)]
