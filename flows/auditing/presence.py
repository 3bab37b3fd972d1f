"""Where the bytes of a chain still are: work tree, DVC's cache here, DVC's remote, the store.

This tells what is there, by name and size. Whether it is unchanged, ``recstill verify`` tells: it hashes every byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from components.errors import RecstillError
from components.storage.contract import ObjectStore
from flows.auditing.records import kind_of
from flows.auditing.subject import PACKAGE

if TYPE_CHECKING:
    from flows.auditing.lineage import Lineage, Made, Node, Trace
    from flows.auditing.shelf import ManifestNote, Shelved


def look(lineage: Lineage, trace: Trace) -> None:
    """Write into every node where its bytes are; what cannot be asked is told in the notes."""
    from flows.dvc_remote import remote_has

    wanted = {made.md5 for node in trace.nodes for made in node.made}
    try:
        remote = remote_has(lineage.root, wanted)
    except RecstillError as error:
        trace.notes.append(f"DVC's remote was not asked: {error.message}")
        remote = set()
    manifests = {note.md5: note for note in lineage.shelf.manifests}
    packages = {one.package: one for one in lineage.shelf.releases}
    for node in trace.nodes:
        for made in node.made:
            places = ["work tree"] if _lies_here(lineage, made) else []
            places += ["DVC's cache"] if lineage.local.cached(made.md5) else []
            places += ["DVC's remote"] if made.md5 in remote else []
            places += _in_store(lineage.shelf.store, node, made, manifests, packages)
            node.where[made.path] = places


def _lies_here(lineage: Lineage, made: Made) -> bool:
    path = lineage.root / made.path
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file()) == made.bytes
    return path.is_file() and path.stat().st_size == made.bytes


def _in_store(
    store: ObjectStore, node: Node, made: Made, manifests: dict[str, ManifestNote], packages: dict[str, Shelved]
) -> list[str]:
    if note := manifests.get(made.md5):
        gone = [name for name in note.parts if store.size(f"soft-labels/{note.id}/{name}") is None]
        return ["store"] if not gone else [f"store, but for {len(gone)} of {len(note.parts)} parts"]
    if kind_of(made.path) == PACKAGE and (release := packages.get(node.digest or "")):
        own = [file for file in release.files if store.size(f"packages/{release.package}/{file}") is not None]
        return ["store"] if own else []
    return []
