"""Whether ``dvc.lock``, the signed statements, the release and its bill of materials tell the same story.

Each of them is derived from the lock, was signed or hashed on its own, and can be forged on its own: an edited lock, a
statement of another run, a bill of another version. What they say about one thing has to be one thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from components.provenance.stage_run import (
    FOLDER,
    FileDigests,
    StageStatement,
    entry_id,
    folder_hash,
    listing,
    listing_md5,
    of_lock_entry,
    plain,
)
from components.storage.digests import record_digest

BESIDE = ("gate.json", "provenance.intoto.jsonl", "bom.cdx.json")
"""Files of a release that are none of its package."""
_KINDS = ("source", "dataset", "teacher", "student", "pruned", "soft_labels")


class ReleaseFacts(Protocol):
    """What is compared of a release: see ``components.serving.releases.Release``."""

    @property
    def name(self) -> str:
        """Scenario."""

    @property
    def version(self) -> int:
        """From 1."""

    @property
    def package(self) -> str:
        """SHA-256 of ``package.json``."""

    @property
    def files(self) -> Mapping[str, str]:
        """SHA-256 by file name."""

    @property
    def commit(self) -> str:
        """That holds the lock."""

    @property
    def created(self) -> str:
        """When that commit was made."""

    @property
    def lineage(self) -> Mapping[str, str]:
        """Digests by kind."""

    @property
    def dirty(self) -> bool | None:
        """Was code in no commit?"""

    @property
    def run_key(self) -> str:
        """Empty: the release is of a version that recorded less."""


def disagreements(
    lock_stages: Mapping[str, Mapping[str, Any]],
    statements: Sequence[StageStatement],
    release: ReleaseFacts | None = None,
    bom: Mapping[str, Any] | None = None,
) -> list[str]:
    """Where they contradict each other; one line each, in a fixed order, none when all is well.

    Args:
        lock_stages: The stages of the ``dvc.lock`` of the release's commit, by address; those of other scenarios than
            the statements' are not looked at.
        statements: Of the scenario's stages, signatures checked.
        release: As its attestation says. None: there is none yet.
        bom: The bill, parsed. None: the release has none.
    """
    scenario = release.name if release else next((one.scenario for one in statements), "")
    stages = {
        address: entry
        for address, entry in lock_stages.items()
        if address.partition("@")[2] == scenario and entry.get("outs")
    }
    lines = [*_lock_and_statements(stages, statements), *_within_the_lock(stages), *_between(statements)]
    for one in statements:
        lines += _subjects(one)
    if release is not None:
        lines += _release_and_statements(release, statements)
        if bom is not None:
            lines += _bill_and_release(bom, release)
            lines += _bill_and_statements(bom, statements)
    return lines


def _lock_and_statements(
    stages: Mapping[str, Mapping[str, Any]], statements: Sequence[StageStatement]
) -> Iterator[str]:
    for address, entry in stages.items():
        about = [one for one in statements if one.address == address]
        if len(about) != 1:
            yield f"{address}: {'no statement is' if not about else f'{len(about)} statements are'} about it"
            continue
        facts, one = of_lock_entry(address, entry), about[0]
        found = [
            *_maps(f"{address}: the MD5 of", facts["outputs"], one.outputs, "dvc.lock", "its statement"),
            *_maps(f"{address}: the MD5 of", facts["inputs"], one.inputs, "dvc.lock", "its statement"),
            *_maps(f"{address}: the MD5 of", facts["code"], one.code, "dvc.lock", "its statement"),
            *_maps(f"{address}: parameter", plain(facts["params"]), one.params, "dvc.lock", "its statement"),
        ]
        if facts["cmd"] != one.cmd:
            found.append(f"{address}: dvc.lock has the command {facts['cmd']!r}, its statement {one.cmd!r}")
        if not found and entry_id(entry) != one.entry:
            found.append(f"{address}: its entry in dvc.lock is {entry_id(entry)}, its statement is of {one.entry}")
        yield from found
    for address in sorted({one.address for one in statements} - set(stages)):
        yield f"{address}: a statement is about it, and dvc.lock does not record it"


def _within_the_lock(stages: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A stage reads what another one made: the lock has to name the same bytes on both sides."""
    made = {path: (address, md5) for address, one in _facts(stages) for path, md5 in one["outputs"].items()}
    for address, one in _facts(stages):
        for path, md5 in one["inputs"].items():
            if path in made and made[path][1] != md5:
                yield (
                    f"{address}: dvc.lock has it read {path} of MD5 {md5}, and {made[path][0]} make it of MD5 "
                    f"{made[path][1]}"
                )


def _between(statements: Sequence[StageStatement]) -> Iterator[str]:
    """The same in SHA-256, as the statements attest it."""
    made = {path: (one, path in one.subjects) for one in statements for path in one.outputs}
    for one in statements:
        for path, sha256 in one.input_sha256.items():
            if path not in made:
                continue
            maker, is_file = made[path]
            found = maker.subjects[path].sha256 if is_file else folder_hash(_sha256(_below(maker, path)))
            if found != sha256:
                yield (
                    f"{one.address}: its statement has it read {path} of SHA-256 {sha256}, that of {maker.address} "
                    f"says {found}"
                )


def _subjects(one: StageStatement) -> Iterator[str]:
    """The files that a statement attests have to be those that it names by DVC's MD5."""
    left = set(one.subjects)
    for path, md5 in one.outputs.items():
        files = _below(one, path) if md5.endswith(FOLDER) else {}
        left -= {f"{path}/{name}" for name in files} | {path}
        found = (
            listing_md5(listing({name: file.md5 for name, file in files.items()}))
            if md5.endswith(FOLDER)
            else one.subjects[path].md5
            if path in one.subjects
            else "nothing"
        )
        if found != md5:
            yield f"{one.address}: its statement names {path} by MD5 {md5}, and attests files that give {found}"
    for path in sorted(left):
        yield f"{one.address}: its statement attests {path}, which is no output of it"


def _release_and_statements(release: ReleaseFacts, statements: Sequence[StageStatement]) -> Iterator[str]:
    shown = f"{release.name}@v{release.version}"
    told = {kind: digest for one in statements for kind, digest in one.digests.items()}
    for kind in _KINDS:
        if kind in told and kind in release.lineage and told[kind] != release.lineage[kind]:
            yield f"{shown}: it names the {kind} {release.lineage[kind]}, the statements {told[kind]}"
    packing = next((one for one in statements if "package" in one.digests), None)
    if packing is None:
        yield f"{shown}: no statement is about its package"
        return
    if packing.digests["package"] != release.package:
        yield (
            f"{shown}: its package is {release.package}, the statement of {packing.address} is about "
            f"{packing.digests['package']}"
        )
    folder = next((path for path in packing.outputs if f"{path}/package.json" in packing.subjects), "")
    attested = _sha256(_below(packing, folder))
    own = {file: digest for file, digest in release.files.items() if file not in BESIDE}
    yield from _maps(f"{shown}: the SHA-256 of", own, attested, "the release", f"the statement of {packing.address}")
    yield from _variant_and_origin(release, packing, statements)


def _variant_and_origin(
    release: ReleaseFacts, packing: StageStatement, statements: Sequence[StageStatement]
) -> Iterator[str]:
    shown = f"{release.name}@v{release.version}"
    quantizing = next((one for one in statements if "variants" in one.digests), None)
    variant = release.lineage.get("variant")
    if quantizing and variant and variant not in {one.sha256 for one in quantizing.subjects.values()}:
        yield f"{shown}: it ships the variant {variant}, and {quantizing.address} has made no such file"
    params, recorded = packing.params.get(f"scenarios.{release.name}"), release.lineage.get("params")
    if params is not None and recorded and record_digest(params) != recorded:
        yield f"{shown}: it names the parameters {recorded}, those of {packing.address} are {record_digest(params)}"
    commit = release.lineage.get("commit")
    if packing.attached == "during the run" and commit and commit != packing.commit:
        yield f"{shown}: its package says commit {commit}, the statement of {packing.address} {packing.commit}"
    if release.run_key and release.dirty is False and any(one.dirty for one in statements):
        yield f"{shown}: it says that all code was in a commit, and a statement that it was not"


def _bill_and_release(bom: Mapping[str, Any], release: ReleaseFacts) -> Iterator[str]:
    shown = f"{release.name}@v{release.version}"
    metadata = bom.get("metadata") or {}
    model = metadata.get("component") or {}
    references = {one.get("url"): _hash(one) for one in model.get("externalReferences") or ()}
    said = {
        "name": model.get("name"),
        "version": model.get("version"),
        "model.onnx": _hash(model),
        "package": _property(model, "package"),
        "commit": _property(metadata, "commit"),
        "time": metadata.get("timestamp"),
        "provenance.intoto.jsonl": references.get("provenance.intoto.jsonl"),
    }
    known = {
        "name": release.name,
        "version": str(release.version),
        "model.onnx": release.files.get("model.onnx"),
        "package": release.package,
        "commit": release.commit,
        "time": release.created,
        "provenance.intoto.jsonl": release.files.get("provenance.intoto.jsonl"),
    }
    yield from _maps(f"{shown}:", known, said, "the release", "its bill of materials")
    listed = {one.get("name"): _hash(one) for one in model.get("components") or ()}
    own = {file: digest for file, digest in release.files.items() if file not in BESIDE}
    yield from _maps(f"{shown}: the SHA-256 of", own, listed, "the release", "its bill of materials")
    named = {one.get("bom-ref", "").partition(":")[0]: _property(one, "digest") for one in _artifacts(bom)}
    named = {kind: digest for kind, digest in named.items() if kind in _KINDS}
    kinds = {kind: release.lineage.get(kind) for kind in named}
    yield from _maps(f"{shown}: the", kinds, named, "the release", "its bill of materials")


def _bill_and_statements(bom: Mapping[str, Any], statements: Sequence[StageStatement]) -> Iterator[str]:
    attested = {path: one.sha256 for statement in statements for path, one in statement.subjects.items()}
    for artifact in _artifacts(bom):
        for file in artifact.get("components") or ():
            path, sha256 = file.get("name"), _hash(file)
            if attested.get(path) != sha256:
                yield (
                    f"{artifact.get('name')}: the bill of materials lists {path} of SHA-256 {sha256}, the statements "
                    f"say {attested.get(path, 'nothing of it')}"
                )


def _artifacts(bom: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Ancestors of the model, nearest first, and data."""
    model = (bom.get("metadata") or {}).get("component") or {}
    while ancestors := (model.get("pedigree") or {}).get("ancestors"):
        model = ancestors[0]
        yield model
    yield from (one for one in bom.get("components") or () if one.get("type") == "data")


def _maps(what: str, one: Mapping[str, Any], other: Mapping[str, Any], of_one: str, of_other: str) -> Iterator[str]:
    for key in sorted({*one, *other}, key=str):
        left, right = one.get(key), other.get(key)
        if left != right:
            yield f"{what} {key}: {of_one} says {_short(left)}, {of_other} {_short(right)}"


def _facts(stages: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [(address, of_lock_entry(address, entry)) for address, entry in stages.items()]


def _below(one: StageStatement, folder: str) -> dict[str, FileDigests]:
    """The files of a folder by their name below it."""
    prefix = f"{folder}/"
    return {path.removeprefix(prefix): file for path, file in one.subjects.items() if path.startswith(prefix)}


def _sha256(files: Mapping[str, FileDigests]) -> dict[str, str]:
    return {name: one.sha256 for name, one in files.items()}


def _hash(one: Mapping[str, Any]) -> str | None:
    return next((str(hash_["content"]) for hash_ in one.get("hashes") or () if hash_.get("alg") == "SHA-256"), None)


def _property(one: Mapping[str, Any], name: str) -> str | None:
    entries = one.get("properties") or ()
    return next((str(entry["value"]) for entry in entries if entry.get("name") == f"recstill:{name}"), None)


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
