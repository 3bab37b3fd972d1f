from __future__ import annotations

import datetime
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import google.protobuf.json_format as protobuf_json
import pytest
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

from components.errors import IntegrityError
from components.provenance.signing import SigningKey, sign, signing_key
from components.provenance.stage_statement import (
    PAYLOAD_TYPE,
    StageStatement,
    build,
    bundle,
    entry_id,
    find_statement,
    folder_hash,
    of_lock_entry,
    payload_of,
    publish_statement,
    read_bundle,
    read_statement,
    signed,
    statement_key,
)
from components.storage.folder_store import FolderStore
from tests.unit.provenance.statements import ADDRESS, FILES, digests_of, lock_entry, statement


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return signing_key(tmp_path / "keys")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


def put(store: FolderStore, where: str, envelope: bytes) -> None:
    path = store.local_file(where)
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(envelope)


def test_what_is_written_is_read_again(store: FolderStore, key: SigningKey) -> None:
    one = statement()
    assert publish_statement(store, one, key)
    found = find_statement(store, "tiny", one.entry, [key.public])
    assert found is not None and found == signed(one, key) and found.signed_by == key.public.id
    assert replace(found, signed_by="", envelope=b"") == one


@pytest.mark.parametrize(
    "changes",
    [
        {"commit": "unknown", "dirty": None, "requirements": "", "environment": {}, "byproducts": {}},
        {"started": "", "finished": "", "attached": "afterwards", "input_sha256": {}, "digests": {}, "metrics": {}},
        {"inputs": {"s3://bucket/events": "etag:abc-2", "data/events.csv": "0" * 32}, "input_sha256": {}},
    ],
)
def test_what_is_not_known_stays_unknown(key: SigningKey, changes: dict) -> None:
    one = statement(**changes)
    found = read_statement(signed(one, key).envelope, [key.public], "it")
    assert replace(found, signed_by="", envelope=b"") == one
    assert in_toto_takes(one)


def in_toto_takes(one: StageStatement) -> bool:
    """The library of the in-toto project reads it; it knows every field but ours."""
    document = json.loads(json.dumps(build(one)))
    Statement.copy_from_pb(protobuf_json.ParseDict(document, statement_pb2.Statement())).validate()
    predicate = document["predicate"]
    standard = {name: value for name, value in predicate.items() if not name.startswith("recstill_")}
    protobuf_json.ParseDict(standard, provenance_pb2.Provenance())  # an unknown field, or one of a wrong type, raises
    assert set(standard) == {"buildDefinition", "runDetails"}
    for name in ("startedOn", "finishedOn"):
        if time := standard["runDetails"]["metadata"].get(name):
            datetime.datetime.fromisoformat(time)
    return all(one.get("uri") or one.get("digest") for one in standard["buildDefinition"]["resolvedDependencies"])


def test_the_in_toto_library_takes_statement_and_predicate() -> None:
    assert in_toto_takes(statement())
    document = build(statement())
    document["predicate"]["runDetails"]["metadata"]["startedOn"] = "yesterday"
    with pytest.raises(protobuf_json.ParseError):
        protobuf_json.ParseDict({"runDetails": document["predicate"]["runDetails"]}, provenance_pb2.Provenance())


def test_the_same_facts_and_key_give_the_same_bytes_and_the_first_statement_stays(
    store: FolderStore, key: SigningKey
) -> None:
    one = statement()
    assert signed(one, key).envelope == signed(statement(), key).envelope
    assert publish_statement(store, one, key)
    assert not publish_statement(store, replace(one, attached="afterwards"), key)
    found = find_statement(store, "tiny", one.entry, [key.public])
    assert found is not None and found.attached == "during the run"


def test_an_entry_is_what_the_lock_records_and_nothing_else() -> None:
    entry = entry_id(lock_entry())
    assert entry == entry_id(dict(reversed(lock_entry().items()))) == entry_id({**lock_entry(), "desc": "words"})
    other = lock_entry()
    other["outs"][0]["md5"] = "f" * 32
    assert entry_id(other) != entry
    dated = lock_entry(params={"params.yaml": {"source.as_of": datetime.date(2026, 5, 3)}})
    assert len(entry_id(dated)) == 64 and of_lock_entry(ADDRESS, dated)["params"]


def test_code_and_data_are_told_apart() -> None:
    facts = of_lock_entry(ADDRESS, lock_entry())
    assert (facts["stage"], facts["scenario"]) == ("distill", "tiny")
    assert set(facts["code"]) == {"components/errors.py", "components/stages/distill.py"}
    assert set(facts["inputs"]) == {"artifacts/tiny/dataset", "artifacts/tiny/soft_labels/manifest.json"}
    assert facts["outputs"]["artifacts/tiny/student"] == f"{'4' * 32}.dir"


def test_a_missing_statement_is_none(store: FolderStore, key: SigningKey) -> None:
    assert find_statement(store, "tiny", "0" * 64, [key.public]) is None


def test_a_statement_in_the_place_of_another_one_is_refused(store: FolderStore, key: SigningKey) -> None:
    one, other = statement(), statement(entry="c" * 64)
    put(store, statement_key("tiny", one.entry), signed(other, key).envelope)
    with pytest.raises(IntegrityError, match=f"is the statement of distill@tiny, entry {'c' * 64}"):
        find_statement(store, "tiny", one.entry, [key.public])


def test_every_flipped_byte_of_the_payload_is_noticed(key: SigningKey) -> None:
    envelope = signed(statement(), key).envelope
    start = envelope.index(b'"payload"') + len('"payload": "')
    for position in range(start, envelope.index(b'"', start), 97):
        broken = bytearray(envelope)
        broken[position] = ord("A") if broken[position] != ord("A") else ord("B")
        with pytest.raises(IntegrityError):
            read_statement(bytes(broken), [key.public], "it")


def test_a_signature_of_nobody_who_is_trusted_is_refused(tmp_path: Path, key: SigningKey) -> None:
    with pytest.raises(IntegrityError, match="no trusted key has signed it"):
        read_statement(signed(statement(), signing_key(tmp_path / "other")).envelope, [key.public], "it")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("predicateType",), "urn:recstill:release:1"),
        (("_type",), "https://in-toto.io/Statement/v0.1"),
        (("predicate", "buildDefinition", "buildType"), "https://example.org/other"),
        (("predicate", "recstill_attached"), "before the run"),
        (("subject",), []),
        (("subject", 0, "name"), "../outside"),
        (("subject", 0, "digest", "sha256"), "short"),
        (("predicate", "recstill_entry"), "short"),
    ],
)
def test_a_signed_document_of_another_form_is_no_statement(key: SigningKey, path: tuple, value: object) -> None:
    document = build(statement())
    place = document
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(IntegrityError, match="none about a stage"):
        read_statement(sign(json.dumps(document).encode(), PAYLOAD_TYPE, key), [key.public], "it")


def test_a_statement_about_nothing_is_none(store: FolderStore, key: SigningKey) -> None:
    with pytest.raises(IntegrityError, match="no output"):
        publish_statement(store, statement(subjects={}), key)


@pytest.mark.parametrize("scenario", ["../up", "", "a/b"])
def test_a_key_stays_below_provenance(scenario: str) -> None:
    with pytest.raises(IntegrityError):
        statement_key(scenario, "0" * 64)


def test_a_bundle_has_one_envelope_a_line_and_each_is_checked(key: SigningKey, tmp_path: Path) -> None:
    both = [signed(statement(), key), signed(statement(entry="c" * 64), key)]
    content = bundle(both)
    assert content.count(b"\n") == 2 and content == bundle(both)
    found = read_bundle(content, [key.public], "the bundle")
    assert [one.entry for one in found] == [one.entry for one in both]
    assert payload_of(content.splitlines()[0]) == json.loads(json.dumps(build(both[0])))
    stranger = bundle([both[0], signed(statement(), signing_key(tmp_path / "other"))])
    with pytest.raises(IntegrityError, match="the bundle, line 2"):
        read_bundle(stranger, [key.public], "the bundle")


def test_the_hash_of_a_folder_is_what_sha256sum_gives(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    contents = {"b.json": b"{}", "a/deep.bin": b"\0\1", "a.txt": "größe".encode(), "Z": b""}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    command = "find . -type f | sed 's,^[.]/,,' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    printed = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert folder_hash({name: digests_of(content).sha256 for name, content in contents.items()}) == printed.split()[0]


def test_subjects_are_sorted_and_hold_both_digests() -> None:
    subjects = build(statement(subjects=dict(reversed(FILES.items()))))["subject"]
    assert [one["name"] for one in subjects] == sorted(FILES)
    assert all(set(one["digest"]) == {"md5", "sha256"} and one["annotations"]["bytes"] >= 0 for one in subjects)
