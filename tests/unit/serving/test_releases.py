import hashlib
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from components.errors import DataError, IntegrityError, StorageError
from components.provenance.signing import SigningKey, sign, signing_key
from components.provenance.stage_statement import payload_of
from components.serving.candidate import Candidate, propose, read_candidate, withdraw
from components.serving.pointer import PointerFollower, Switch, SwitchConflictError, current, history, switch
from components.serving.predictor import Predictor
from components.serving.releases import (
    PAYLOAD_TYPE,
    Release,
    attestation_key,
    fetch_release,
    names,
    publish,
    read_release,
    verify_release,
    versions,
)
from components.storage.contract import MissingObjectError
from components.storage.folder_store import FolderStore

VERDICT = {"format": 1, "passed": True, "kind": "first", "reasons": [], "champion": None}


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return signing_key(tmp_path_factory.mktemp("keys"))


def published(store: FolderStore, package: Path, key: SigningKey, version: int = 1, **changes: Any) -> Release:
    facts: dict[str, Any] = {"name": "tiny", "version": version, "commit": "c" * 40, "created": "2026-11-24T00:00:00Z"}
    return publish(store, package, VERDICT, **(facts | changes), key=key)


def switched(store: FolderStore, key: SigningKey, release: Release, **facts: Any) -> Switch:
    return switch(store, "tiny", release, **facts, key=key, keys=[key.public])


def test_what_is_published_is_read_fetched_and_answers(
    store: FolderStore, package: Path, key: SigningKey, tmp_path: Path
) -> None:
    release = published(store, package, key)
    assert read_release(store, "tiny", 1, [key.public]) == release
    place = fetch_release(store, release, tmp_path / "fetched")
    assert Predictor(place).replay_golden() > 0
    assert json.loads((place / "gate.json").read_text()) == VERDICT
    assert (versions(store, "tiny"), names(store), verify_release(store, release)) == ([1], ["tiny"], [])


def test_papers_beside_the_package_are_signed_fetched_and_tolerated(
    store: FolderStore, package: Path, key: SigningKey, tmp_path: Path
) -> None:
    beside = {"provenance.intoto.jsonl": b"{}\n", "bom.cdx.json": b"{}"}
    facts = {"dirty": True, "run_key": "e" * 64, "who": "Tess Ter <tess@example.org>"}
    release = published(store, package, key, beside=beside, **facts)
    found = read_release(store, "tiny", 1, [key.public])
    assert found == release and {name: getattr(found, name) for name in facts} == facts
    assert release.key("bom.cdx.json") == f"releases/tiny/v1/bom-{release.files['bom.cdx.json']}.cdx.json"
    place = fetch_release(store, release, tmp_path / "fetched")
    assert {name: (place / name).read_bytes() for name in beside} == beside
    assert Predictor(place).replay_golden() > 0
    store.delete(release.key("provenance.intoto.jsonl"))
    assert "provenance.intoto.jsonl" in verify_release(store, release)[0]


def test_an_older_release_without_papers_is_read_as_ever(store: FolderStore, package: Path, key: SigningKey) -> None:
    published(store, package, key)
    where = store.local_file(attestation_key("tiny", 1))
    assert where is not None
    statement = payload_of(where.read_bytes())
    for field in ("dirty", "run", "who"):
        del statement["predicate"][field]
    where.write_bytes(sign(json.dumps(statement).encode(), PAYLOAD_TYPE, key))
    found = read_release(store, "tiny", 1, [key.public])
    assert (found.dirty, found.run_key, found.who) == (None, "", "")


@pytest.mark.parametrize("file", ["package.json", "other.txt", "../gate.json"])
def test_nothing_else_lies_beside_a_package(store: FolderStore, package: Path, key: SigningKey, file: str) -> None:
    with pytest.raises(DataError, match="cannot lie beside"):
        published(store, package, key, beside={file: b""})
    assert list(store.list("")) == []


def test_the_same_again_gives_the_same_bytes_and_another_one_is_refused(
    store: FolderStore, package: Path, key: SigningKey
) -> None:
    first = published(store, package, key)
    before = {entry.key: store.get(entry.key) for entry in store.list("")}
    assert published(store, package, key) == first
    assert {entry.key: store.get(entry.key) for entry in store.list("")} == before
    with pytest.raises(StorageError, match="exists already"):
        published(store, package, key, commit="d" * 40)


def test_a_version_without_an_attestation_is_none(store: FolderStore, package: Path, key: SigningKey) -> None:
    release = published(store, package, key)
    store.delete(attestation_key("tiny", 1))
    assert versions(store, "tiny") == []
    with pytest.raises(MissingObjectError, match="no release tiny@v1; of tiny there is: none"):
        read_release(store, "tiny", 1, [key.public])
    assert published(store, package, key) == release


@pytest.mark.parametrize("file", ["model.onnx", "package.json", "gate.json", "vocabulary.parquet"])
def test_damage_to_any_file_is_found_and_nothing_is_left_of_the_fetch(
    store: FolderStore, package: Path, key: SigningKey, tmp_path: Path, file: str
) -> None:
    release = published(store, package, key)
    path = store.local_file(release.key(file))
    assert path is not None
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    for damage in (lambda: path.write_bytes(content), path.unlink):
        damage()
        assert [file in problem for problem in verify_release(store, release)] == [True]
        with pytest.raises((IntegrityError, MissingObjectError)):
            fetch_release(store, release, tmp_path / "fetched")
        assert not any((tmp_path / "fetched").iterdir())


def test_a_fetched_folder_that_was_changed_is_fetched_again(
    store: FolderStore, package: Path, key: SigningKey, tmp_path: Path
) -> None:
    release = published(store, package, key)
    place = fetch_release(store, release, tmp_path)
    (place / "model.onnx").write_bytes(b"x" * release.sizes["model.onnx"])
    Predictor(fetch_release(store, release, tmp_path)).replay_golden()


def test_an_attestation_of_another_version_or_signer_is_refused(
    store: FolderStore, package: Path, key: SigningKey, tmp_path: Path
) -> None:
    published(store, package, key)
    published(store, package, key, version=2)
    moved = store.local_file(attestation_key("tiny", 2))
    origin = store.local_file(attestation_key("tiny", 1))
    assert moved is not None and origin is not None
    moved.unlink()
    shutil.copy(origin, moved)
    with pytest.raises(IntegrityError, match="is that of tiny@v1"):
        read_release(store, "tiny", 2, [key.public])
    with pytest.raises(IntegrityError, match="no trusted key"):
        read_release(store, "tiny", 1, [signing_key(tmp_path / "other").public])


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"subject": [], "predicate": {}}'])
def test_a_signed_record_of_another_form_is_refused(store: FolderStore, key: SigningKey, payload: bytes) -> None:
    envelope = sign(payload, PAYLOAD_TYPE, key)
    place = Path(store.address.removeprefix("file://")) / attestation_key("tiny", 1)
    place.parent.mkdir(parents=True)
    place.write_bytes(envelope)
    with pytest.raises(IntegrityError, match="not of the form"):
        read_release(store, "tiny", 1, [key.public])


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b"])
def test_a_name_that_is_none_is_refused(store: FolderStore, name: str) -> None:
    with pytest.raises(DataError, match="no name of a model"):
        versions(store, name)


def test_a_package_with_a_file_of_its_own_is_refused(package: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(package, tmp_path / "package")
    (copy / "extra.bin").write_bytes(b"?")
    with pytest.raises(IntegrityError, match=r"extra\.bin does not belong"):
        Predictor(copy)


def test_switches_are_a_log_and_the_last_one_is_live(store: FolderStore, package: Path, key: SigningKey) -> None:
    releases = [published(store, package, key, version=number) for number in (1, 2)]
    assert current(store, "tiny", [key.public]) is None
    follower = PointerFollower(store, "tiny", lambda: [key.public])
    assert follower.latest() is None
    for number, (release, kind) in enumerate(
        zip([*releases, releases[0]], ["deploy", "deploy", "rollback"], strict=True)
    ):
        done = switched(store, key, release, expected=number, kind=kind, who="me", why="a test")  # type: ignore[arg-type]
        assert (current(store, "tiny", [key.public]), follower.latest()) == (done, done)
    assert [(one.number, one.version, one.previous) for one in history(store, "tiny", [key.public])] == [
        (1, 1, None),
        (2, 2, 1),
        (3, 1, 2),
    ]


def test_a_switch_on_an_older_state_changes_nothing(store: FolderStore, package: Path, key: SigningKey) -> None:
    release = published(store, package, key)
    switched(store, key, release, expected=0, kind="deploy", who="first", why="")
    with pytest.raises(SwitchConflictError, match="by first; nothing was changed"):
        switched(store, key, release, expected=0, kind="deploy", who="second", why="")
    assert len(history(store, "tiny", [key.public])) == 1


def test_of_many_switches_at_once_exactly_one_wins(store: FolderStore, package: Path, key: SigningKey) -> None:
    release = published(store, package, key)
    start, won, lost = threading.Barrier(8), [], []

    def one(number: int) -> None:
        start.wait()
        try:
            won.append(switched(store, key, release, expected=0, kind="deploy", who=str(number), why=""))
        except SwitchConflictError:
            lost.append(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    assert history(store, "tiny", [key.public]) == won


def test_a_damaged_log_is_told(store: FolderStore, package: Path, key: SigningKey) -> None:
    release = published(store, package, key)
    for number in range(3):
        switched(store, key, release, expected=number, kind="deploy", who="", why="")
    last = store.local_file("releases/tiny/prod/00000003.dsse.json")
    assert last is not None
    sound = last.read_bytes()
    last.write_text("{}")
    with pytest.raises(IntegrityError, match=r"entry 3 of releases/tiny/prod .* damaged"):
        current(store, "tiny", [key.public])
    last.write_bytes(sound)
    store.delete("releases/tiny/prod/00000002.dsse.json")
    for read in (current, history):
        with pytest.raises(IntegrityError, match=r"entry 2 of releases/tiny/prod .* is missing"):
            read(store, "tiny", [key.public])


def test_nobody_moves_the_pointer_without_a_trusted_key(
    store: FolderStore, package: Path, key: SigningKey, tmp_path: Path
) -> None:
    first, second = (published(store, package, key, version=number) for number in (1, 2))
    switched(store, key, first, expected=0, kind="deploy", who="", why="")
    follower = PointerFollower(store, "tiny", lambda: [key.public])
    assert follower.latest() == current(store, "tiny", [key.public])
    other = signing_key(tmp_path / "others")
    switch(store, "tiny", second, expected=1, kind="deploy", who="", why="", key=other, keys=[key.public])
    for look in (follower.latest, lambda: current(store, "tiny", [key.public])):
        with pytest.raises(IntegrityError, match=r"no trusted key has signed entry 2 of releases/tiny/prod"):
            look()
    with pytest.raises(IntegrityError, match="no trusted key"):
        switched(store, key, second, expected=2, kind="deploy", who="", why="")


def test_a_switch_of_another_model_or_store_is_not_taken_for_one_of_this(
    store: FolderStore, package: Path, key: SigningKey
) -> None:
    releases = [published(store, package, key, version=number) for number in (1, 2)]
    for number, release in enumerate(releases):
        switched(store, key, release, expected=number, kind="deploy", who="", why="")
        switch(
            store, "huge", release, expected=number, kind="deploy", who="", why="", key=key, keys=[key.public]
        )  # fmt: skip
    store.delete("releases/tiny/prod/00000002.dsse.json")
    content = store.get("releases/huge/prod/00000002.dsse.json")
    store.put("releases/tiny/prod/00000002.dsse.json", content, hashlib.sha256(content).hexdigest())
    with pytest.raises(IntegrityError, match=r"is entry 2 of 'releases/huge/prod'"):
        current(store, "tiny", [key.public])


def test_a_follower_is_not_moved_by_a_log_that_was_cut_or_has_another_past(
    store: FolderStore, package: Path, key: SigningKey
) -> None:
    releases = [published(store, package, key, version=number) for number in (1, 2)]
    for number in range(2):
        switched(store, key, releases[number], expected=number, kind="deploy", who="", why="")
    follower = PointerFollower(store, "tiny", lambda: [key.public])
    seen = follower.latest()
    assert seen is not None and seen.version == 2
    store.delete("releases/tiny/prod/00000002.dsse.json")
    assert follower.latest() == seen
    switched(store, key, releases[0], expected=1, kind="deploy", who="", why="")
    switched(store, key, releases[0], expected=2, kind="deploy", who="", why="")
    with pytest.raises(IntegrityError, match="was not written after"):
        follower.latest()


def test_a_candidate_is_proposed_read_and_withdrawn(store: FolderStore, key: SigningKey, tmp_path: Path) -> None:
    candidate, keys = Candidate("tiny", 2, "a" * 64, "canary", 0.1, 2e9, "one"), [key.public]
    assert read_candidate(store, "tiny", keys) is None
    propose(store, candidate, key)
    assert read_candidate(store, "tiny", keys) == candidate
    propose(store, candidate._replace(share=2), key)
    with pytest.raises(IntegrityError, match="no record of a candidate"):
        read_candidate(store, "tiny", keys)
    propose(store, candidate, signing_key(tmp_path / "others"))
    with pytest.raises(IntegrityError, match="no trusted key has signed the candidate"):
        read_candidate(store, "tiny", keys)
    withdraw(store, "tiny")
    withdraw(store, "tiny")
    assert read_candidate(store, "tiny", keys) is None


def test_who_loses_a_race_for_a_version_does_not_harm_the_winner(
    store: FolderStore, package: Path, key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    winner = published(store, package, key)
    # The loser looked before the winner's attestation was there.
    monkeypatch.setattr(store, "size", lambda key: None)
    with pytest.raises(StorageError, match="exists already"):
        publish(store, package, VERDICT | {"reasons": ["another"]}, name="tiny", version=1, commit="d" * 40,
                created="2026-11-24T00:00:00Z", key=key)  # fmt: skip
    assert verify_release(store, winner) == []
